"""What a running daemon consists of, and how the parts are put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from marketplace.protocol import wire
from worker.ledger import Ledger, OrderState
from worker.node.counting import ask_count, count_socket
from worker.node.delivery import Delivery
from worker.node.desk import FrameDesk
from worker.node.facts import Notes
from worker.node.intake import Intake
from worker.node.link import Identity, Link, LinkCalls, LinkState
from worker.node.loops import LoopTimes, Reconciler, SettleTrigger
from worker.node.offers import OfferBook, Price
from worker.node.queue import TaskQueue
from worker.node.rules import Terms
from worker.receipts import ReceiptDesk
from worker.receipts.hints import can_hint, cancel_channel, publisher
from worker.settle.sessions import ReadsSessions, SessionBook
from worker.settle.vouchers import VoucherDesk

ServedTasks = Callable[[], Mapping[bytes, str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonOptions:
    """How the daemon runs.

    Attributes:
        broker_url: None starts the bundled Valkey.
        child_settings: environment by which the workers find the same settings.
        worker_app: module of the workers' Celery app.
        spare_worker: an infer worker that has imported everything waits for the other's end.
        metrics_port: where `/metrics` answers on loopback; 0: any free port, below 0: nowhere.
        poll_ms: how often the ledger is looked at for chunks the broker gave no hint of,
        poll_without_hints_ms: and how often when it carries none.
        stop_seconds: how long a stop waits for running jobs, and again for settling.
    """

    data_dir: Path
    gateways: Sequence[str]
    queue: str
    broker_url: str | None
    child_settings: Mapping[str, str]
    prices: Mapping[str, Price]
    slots: int
    offer_valid_seconds: int
    grace_seconds: int
    session_max_age_ms: int
    spare_worker: bool
    start_seconds: int
    stop_seconds: int
    drain_seconds: int
    metrics_port: int = -1
    poll_ms: int = 1_000
    poll_without_hints_ms: int = 100
    times: LoopTimes = field(default_factory=LoopTimes)
    worker_app: str = "worker.main"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Everything the parts of one node share."""

    ledger: Ledger
    chain: ReadsSessions
    identity: Identity
    terms: Terms
    options: DaemonOptions
    now_ms: Callable[[], int]
    random: Callable[[int], bytes]


class ModelWatch:
    """Notices that other models are served than at the last look."""

    def __init__(self, ledger: Ledger) -> None:
        self._notes = Notes(ledger)
        self._seen = self._notes.served()

    def changed(self) -> bool:
        """Whether they are others now."""
        before, self._seen = self._seen, self._notes.served()
        return before != self._seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts the daemon starts and stops. `hint` says that an order may have news."""

    intake: Intake
    links: Mapping[str, Link]
    reconciler: Reconciler
    trigger: SettleTrigger
    hint: Callable[[bytes], None]
    watch: ModelWatch

    async def reconcile(self) -> None:
        """One turn of the reconciler."""
        await asyncio.to_thread(self.reconciler.step)

    async def look_at_models(self) -> None:
        """Offers anew when the infer process serves other models than it did."""
        if await asyncio.to_thread(self.watch.changed):
            for link in self.links.values():
                link.offer_now()
                link.beat_now()

    async def settle(self) -> None:
        """One turn of the settle trigger."""
        await asyncio.to_thread(self.trigger.step)


def assemble(
    node: Node, queue: TaskQueue, *, tasks: ServedTasks, changed: Callable[[str, LinkState], None]
) -> Parts:
    """Builds the parts; call it on the event loop they will live on.

    Args:
        node: what they share.
        queue: sends tasks to the workers.
        tasks: models that can be run now, to their task; None while the infer process is away.
        changed: hears of links that come up or go down.
    """
    options = node.options
    broker_hints = options.broker_url is None or can_hint(options.broker_url)
    poll_ms = options.poll_ms if broker_hints else options.poll_without_hints_ms
    deliveries = {
        url: Delivery(node.ledger, url, node.now_ms, poll_seconds=poll_ms / 1000) for url in options.gateways
    }

    def hint(order_hash: bytes) -> None:
        for delivery in deliveries.values():
            delivery.hint(order_hash)

    loop = asyncio.get_running_loop()

    def hint_from_thread(order_hash: bytes) -> None:
        loop.call_soon_threadsafe(hint, order_hash)

    sessions = SessionBook(node.ledger, node.chain, node.now_ms, max_age_ms=options.session_max_age_ms)
    intake = Intake(
        ledger=node.ledger,
        sessions=sessions,
        terms=node.terms,
        tasks=tasks,
        grace_seconds=options.grace_seconds,
        now_ms=node.now_ms,
        encryption_secret=node.identity.encryption_secret,
        count=partial(ask_count, count_socket(options.data_dir)),
    )
    desk = ReceiptDesk(node.ledger, node.identity.signer, node.identity.domain, node.now_ms)
    reconciler = Reconciler(
        node.ledger,
        queue,
        desk,
        node.now_ms,
        resend_ms=options.times.resend_ms,
        hint=hint_from_thread,
    )
    calls = _calls(node, queue, intake, sessions, deliveries, tasks, changed, desk)
    return Parts(
        intake=intake,
        links=_links(node, deliveries, calls),
        reconciler=reconciler,
        trigger=SettleTrigger(
            node.ledger, queue, every_ms=options.times.settle_ms, claims_due=lambda: _claims_due(node)
        ),
        hint=hint,
        watch=ModelWatch(node.ledger),
    )


def _calls(
    node: Node,
    queue: TaskQueue,
    intake: Intake,
    sessions: SessionBook,
    deliveries: Mapping[str, Delivery],
    tasks: ServedTasks,
    changed: Callable[[str, LinkState], None],
    receipts: ReceiptDesk,
) -> LinkCalls:
    identity, options = node.identity, node.options
    desk = FrameDesk(
        ledger=node.ledger,
        intake=intake,
        vouchers=VoucherDesk(node.ledger, sessions, identity.domain, node.now_ms, node_id=identity.node_id),
        queue=queue,
        deliveries=deliveries,
        receipts=receipts,
        tell_workers=publisher(queue.broker_url, options.queue, cancel_channel(options.queue)),
        now_ms=node.now_ms,
    )
    book = OfferBook(
        ledger=node.ledger,
        signer=identity.signer,
        domain=identity.domain,
        node_id=identity.node_id,
        prices=node.options.prices,
        valid_seconds=node.options.offer_valid_seconds,
        now_ms=node.now_ms,
        random=node.random,
    )
    notes = Notes(node.ledger)
    return LinkCalls(
        offers=lambda: asyncio.to_thread(lambda: book.current(notes.served())),
        heartbeat=lambda running: asyncio.to_thread(_heartbeat, node, intake, tasks, running),
        receive=desk.receive,
        changed=changed,
    )


def _claims_due(node: Node) -> bool:
    now = node.now_ms() // 1000
    claims = node.ledger.claims
    unpaid = claims.unpaid(expired_after=now - node.options.grace_seconds, expired_by=now)
    return bool(unpaid or claims.waiting())


def _links(node: Node, deliveries: Mapping[str, Delivery], calls: LinkCalls) -> dict[str, Link]:
    # Offers are renewed at half their life; asking twice as often keeps one standing at all times.
    every_seconds = max(1.0, node.options.offer_valid_seconds / 4)
    return {
        url: Link(url, node.identity, delivery, calls, node.now_ms, offers_seconds=every_seconds)
        for url, delivery in deliveries.items()
    }


def _heartbeat(node: Node, intake: Intake, tasks: ServedTasks, running: list[bytes]) -> wire.Heartbeat:
    unfinished = sum(node.ledger.orders.counts((OrderState.QUEUED, OrderState.RUNNING)).values())
    served, slots = tasks(), node.options.slots
    return wire.Heartbeat(
        free_slots=0 if served is None else max(0, slots - unfinished),
        queue_depth=max(0, unfinished - slots),
        loaded=list(served or ()),
        running=running,
        draining=intake.draining,
    )

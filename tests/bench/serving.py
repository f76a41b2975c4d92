"""A node under load: real daemon, Valkey, Celery, WebSocket and engine; chain and gateway are fakes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marketplace.dispatch.terms import Terms as MarketTerms
from marketplace.protocol import wire
from marketplace.protocol.errors import ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.merkle import request_hash
from marketplace.protocol.messages import Offer, Order, Receipt
from marketplace.protocol.payloads import ChatMessage, ChatPayload, encode_payload
from tests.flow.gateway import DEPLOYMENT
from tests.worker.gateway import FakeGateway
from tests.worker.support import KEY, NODE, NODE_ID, FakeChain, State
from worker.ledger import Ledger
from worker.main import _options, now_ms
from worker.node.daemon import Daemon
from worker.node.facts import INFER, Notes
from worker.node.link import Identity
from worker.node.rules import Terms
from worker.settings import NodeSettings

SESSION = b"\x51" * 32
_TRIES = 5
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request: words of prompt, tokens of answer."""

    words: int
    tokens: int

    def payload(self, model_id: str) -> ChatPayload:
        text = " ".join(["lighthouse", "keeper", "storm", "sea"][i % 4] for i in range(self.words))
        turns = (ChatMessage(role="user", content=text),)
        return ChatPayload(model=model_id, messages=turns, max_tokens=self.tokens, temperature_milli=0)


def asks(
    number: int, seed: int, *, words: tuple[int, int] = (12, 160), tokens: tuple[int, int] = (16, 128)
) -> list[Ask]:
    """A mix of requests, the same for the same seed."""
    dice = random.Random(seed)  # noqa: S311 - a workload
    return [Ask(words=dice.randint(*words), tokens=dice.randint(*tokens)) for _ in range(number)]


class Serving:
    """A node that serves one model, and the gateway it is linked to."""

    def __init__(self, gateway: FakeGateway, settings: NodeSettings, daemon: Daemon) -> None:
        self.gateway, self.settings, self.daemon = gateway, settings, daemon
        self.ledger = Ledger(settings.ledger)
        self.notes = Notes(self.ledger)
        self.seq = 0
        self.task: asyncio.Task[None] | None = None

    @property
    def worker(self) -> int:
        """Process id of the infer worker that last became ready."""
        pid = self.notes.ready_pid(INFER)
        assert pid is not None
        return pid

    async def ready(self) -> None:
        """Returns once the node offers its model."""
        await self.gateway.wait_for(wire.Offers, timeout_seconds=300)

    async def order(self, ask: Ask, *, seconds: int = 600) -> bytes:
        """Sends an order until it is accepted; gives its hash. A busy machine reads it too late at first."""
        for _ in range(_TRIES):
            order_hash = await self._send(ask, seconds)
            await self.gateway.until(lambda: self._answer(order_hash) is not None, 120)  # noqa: B023
            answer = self._answer(order_hash)
            if isinstance(answer, wire.Accepted):
                return order_hash
            assert isinstance(answer, wire.Refused)
            assert answer.code == ErrorCode.CLOCK_SKEW, answer
        raise AssertionError("every order was too old when the node read it")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The worker stands still in the block: what is ordered there waits in the queue."""
        worker = self.worker
        os.kill(worker, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(worker, signal.SIGCONT)

    def _answer(self, order_hash: bytes) -> wire.Accepted | wire.Refused | None:
        answers = [*self.gateway.of(wire.Accepted), *self.gateway.of(wire.Refused)]
        return next((answer for answer in answers if answer.order_hash == order_hash), None)

    async def _send(self, ask: Ask, seconds: int) -> bytes:
        offer = Offer.decode(self.gateway.of(wire.Offers)[-1].offers[0].message)
        domain = DEPLOYMENT.domain
        self.seq += 1
        salt, payload = os.urandom(32), encode_payload(ask.payload(to_hex(offer.model_id)))
        order = Order(
            session_id=SESSION,
            seq=self.seq,
            offer_hash=offer.digest(domain),
            request_hash=request_hash(salt, payload),
            max_amount_atoms=1_000,
            issued_at_ms=now_ms(),
            deadline_ms=now_ms() + seconds * 1000,
            reply_key=bytes(32),
        )
        await self.gateway.send(
            wire.OrderFrame(
                job_id=f"job_{self.seq}",
                trace_id=os.urandom(16).hex(),
                order=wire.Signed(message=order.encode(), signature=KEY.sign(order, domain)),
                salt=salt,
                payload=payload,
                lease_until_ms=now_ms() + seconds * 1000,
            )
        )
        return order.digest(domain)

    async def receipts(self, number: int, *, timeout_seconds: float = 480) -> list[Receipt]:
        """Waits for so many receipts since the start."""
        await self.gateway.wait_for(wire.ReceiptFrame, number, timeout_seconds)
        return [Receipt.decode(frame.receipt.message) for frame in self.gateway.of(wire.ReceiptFrame)]

    def chunks(self, order_hash: bytes) -> list[wire.ChunkFrame]:
        """Chunks of an order as the gateway got them."""
        return [frame for frame in self.gateway.of(wire.ChunkFrame) if frame.order_hash == order_hash]


def node_settings(folder: Path, gateway: FakeGateway, model: str, **changes: Any) -> NodeSettings:
    """Settings of a node without a chain; nobody ever asks it to settle."""
    DEPLOYMENT.save(folder / "deployment.json")
    values: dict[str, Any] = {
        "data_dir": folder / "node",
        "rpc_url": "http://127.0.0.1:9",
        "deployment_path": folder / "deployment.json",
        "gateway_url": gateway.url,
        "signing_key": to_hex(NODE.secret),
        "models": [{"model": model, "price_per_job_atoms": 1}],
        "slots": 64,
        "queue_limit": 256,
        "log_level": "WARNING",
        "start_seconds": 300,
        "spare_worker": False,
    }
    return NodeSettings(**values | changes)


@asynccontextmanager
async def serving(
    folder: Path, model: str, *, worker_app: str = "worker.main", **changes: Any
) -> AsyncIterator[Serving]:
    """Runs a node for the block, with the settings changed as given."""
    gateway = FakeGateway(DEPLOYMENT.domain)
    gateway.heartbeat_ms = MarketTerms().heartbeat_ms
    async with gateway.running():
        settings = node_settings(folder, gateway, model, **changes)
        node = Serving(gateway, settings, daemon_for(settings, worker_app))
        node.task = asyncio.create_task(node.daemon.run())
        try:
            waiting = asyncio.create_task(node.ready())
            await asyncio.wait({waiting, node.task}, return_when=asyncio.FIRST_COMPLETED)
            if node.task.done():
                waiting.cancel()
                await node.task
            yield node
        finally:
            node.daemon.stop()
            await node.task


def daemon_for(settings: NodeSettings, worker_app: str) -> Daemon:
    """A daemon whose chain is a fake with one session."""
    chain = FakeChain()
    chain.put(SESSION, State(expires_at=int(time.time()) + 86_000))
    domain = DEPLOYMENT.domain
    return Daemon(
        options=_options(settings, DEPLOYMENT, "bench", worker_app),
        ledger=Ledger(settings.ledger),
        chain=chain,
        identity=lambda node_id: Identity(
            node_id=node_id, signer=NODE, domain=domain, encryption_secret=bytes(32)
        ),
        terms=lambda node_id, epoch: Terms(
            node_id=node_id,
            epoch=epoch,
            domain=domain,
            max_job_ms=3_600_000,
            max_session_exposed_atoms=1_000_000,
            max_node_exposed_atoms=1_000_000,
            max_unfinished=settings.slots + settings.queue_limit,
        ),
        enrol=lambda: (NODE_ID, 1),
        now_ms=now_ms,
        random=os.urandom,
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

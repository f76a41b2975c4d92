"""The market's steps in order: quote → fund → dispatch → (node) → receipt → voucher → settled.

Each arrow is one database transaction; frames leave only after it has committed. Read this file first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from marketplace import returned
from marketplace.chain.deployment import Deployment
from marketplace.counting import TIGHT, Counter
from marketplace.dispatch import cancel, intake, once, returns, together
from marketplace.dispatch import step as dispatch
from marketplace.dispatch.links import Link, Links
from marketplace.dispatch.returns import Outcome
from marketplace.dispatch.streams import JobStream, Streams
from marketplace.dispatch.terms import Ask, Terms
from marketplace.funding import budgets
from marketplace.funding import rules as funding_rules
from marketplace.funding import step as funding
from marketplace.funding.receivers import Receivers
from marketplace.funding.vault import Vault
from marketplace.ground import Ground
from marketplace.protocol import ids, wire
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import parse_payload
from marketplace.protocol.phases import HAS_RESULT, EndReason, JobPhase
from marketplace.protocol.signing import Signer
from marketplace.quoting import rules as quoting_rules
from marketplace.quoting import step as quoting
from marketplace.quoting.rules import Need
from marketplace.quoting.step import Quotes
from marketplace.settlement import step as settlement
from marketplace.settlement.step import Acceptance
from marketplace.store import jobs, keys, offers
from marketplace.store.engine import Store
from marketplace.store.tables import JobRow, Tx
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Log

log = get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job that was placed, and what comes of it.

    Attributes:
        replayed: the same call had placed it before.
        left: what its key could still spend when it was placed.
    """

    job_id: str
    stream: JobStream
    replayed: bool = False
    left: budgets.Left | None = None


class Market(Ground):
    """One gateway's market: store, links and streams, and the steps between them."""

    def __init__(
        self,
        store: Store,
        deployment: Deployment,
        vault: Vault,
        *,
        clock: Callable[[], int],
        random: Callable[[int], bytes],
        terms: Terms,
        metrics: Metrics,
        receivers: Receivers | None = None,
    ) -> None:
        super().__init__(store)
        self.deployment, self.vault = deployment, vault
        self.clock, self.random, self.terms, self.metrics = clock, random, terms, metrics
        self.domain, self.receivers = deployment.domain, receivers
        self.links, self.streams = Links(), Streams()
        self.counter = Counter(self, self.links, self._look)
        self._keys: dict[bytes, Signer] = {}
        self._unsent: set[str] = set()

    # ---- buyers -------------------------------------------------------------------------------------

    async def key_of(self, secret: str) -> Signer:
        """The delegate key of a bearer secret. Raises `BadRequest`."""
        digest, now = ids.api_key_hash(secret), self.clock()
        if digest not in self._keys:
            self._keys[digest] = await self.read(lambda tx: funding.open_key(tx, self.vault, secret, now))
        return self._keys[digest]

    async def revoke_key(self, secret: str) -> None:
        """Nobody uses this bearer secret again; what it ordered goes on. Raises `BadRequest`."""
        key, now = await self.key_of(secret), self.clock()
        await self.write(lambda tx: keys.revoke(tx, key.address, now))
        self._keys.pop(ids.api_key_hash(secret), None)

    async def place(self, ask: Ask) -> Running:
        """Orders a call from the best node. The same call again is the same job (`dispatch.once`).

        Raises:
            BadRequest: nothing was ordered, nothing will be charged.
        """
        return (await self.place_all([ask]))[0]

    async def place_all(self, asks: Sequence[Ask]) -> list[Running]:
        """Orders all jobs of one call, or none; the first one's `max_cost_atoms` bounds their sum.

        Raises:
            BadRequest: as `place` does.
        """
        try:
            placed, left = await self.write(lambda tx: self._place_all(tx, asks))
        except BadRequest as refused:
            # Too dear by the bound in bytes: only then is the node's own count worth its time.
            if refused.code not in TIGHT:
                raise
            first = asks[0]
            counted = await self.counter.of(first.model, first.payload, first.node_id, limited=True)
            if counted is None:
                raise
            fewer = [replace(ask, model=counted.model_id, counted=counted.units_in) for ask in asks]
            placed, left = await self.write(lambda tx: self._place_all(tx, fewer))
        started = (self._started(issued, ask.trace_id) for issued, ask in zip(placed, asks, strict=True))
        return [replace(running, left=left) for running in await asyncio.gather(*started)]

    async def place_signed(self, given: dispatch.Given, trace_id: str) -> Running:
        """Sends on an order its key signed elsewhere; the same order again is the same job.

        Raises:
            BadRequest: the first rule it breaks; nothing was ordered.
        """
        job_id = ids.job_id(self.random(15))
        issued = await self.write(lambda tx: self._place_signed(tx, given, job_id, trace_id))
        return await self._started(issued, trace_id)

    async def watch(self, job_id: str) -> Running:
        """A job's stream, ended already when the job is. Raises `BadRequest` for unknown jobs."""
        stream = self.streams.job(job_id)
        job = await self.read(lambda tx: jobs.find(tx, job_id))
        if job is None or job.ended_at_ms is not None:
            self.streams.end(job_id)
        if job is None:
            raise BadRequest(ErrorCode.UNKNOWN_JOB)
        return Running(job_id=job_id, stream=stream)

    async def cancel(self, job_id: str) -> None:
        """Ends a job with what it has: its node stops at the next step. Raises `BadRequest` if unknown."""
        now = self.clock()
        asked = await self.write(lambda tx: cancel.ask(tx, job_id, now))
        log.info(Log.JOB_CANCELLED, job_id=job_id, trace_id=asked.job.trace_id, node_id=asked.node_id)
        if asked.ended:
            await self._ended(asked.job)
        elif asked.frame is not None and asked.node_id is not None:
            # Without a link the node hears of it when it is back.
            self.links.send(asked.node_id, asked.frame)

    # ---- nodes --------------------------------------------------------------------------------------

    async def attach(self, link: Link) -> None:
        """A node proved itself: its open orders and untaken vouchers go out again."""
        now = self.clock()
        # First the link, then the look: an order is placed before, and found here, or finds the link.
        self.links.attach(link)
        orders = await self.write(lambda tx: intake.arrive(tx, link.node_id, now))
        for order_hash, frame in orders:
            if order_hash not in self._unsent:
                link.send(frame)
        for cancelled in await self.read(lambda tx: cancel.again(tx, link.node_id)):
            link.send(cancelled)
        for voucher in await self.read(lambda tx: settlement.pending(tx, link.node_id)):
            link.send(voucher)
        self.metrics.set("nodes_connected", len(self.links))

    async def detach(self, link: Link) -> None:
        """A link ended. Its orders stay the node's until their leases lapse."""
        if self.links.detach(link):
            self.streams.drop_retired(link.node_id)
            await self.write(lambda tx: offers.leave(tx, link.node_id))
            self.metrics.set("nodes_connected", len(self.links))

    async def refused(self, node_id: int, order_hash: str, code: str) -> None:
        """The node will not do it; the job goes elsewhere or ends. Raises `BadRequest`."""
        now = self.clock()
        outcome, vouchers = await self.write(
            lambda tx: self._covered(tx, returns.refused(tx, node_id, order_hash, code, now))
        )
        self._tell(vouchers)
        await self._follow(outcome, order_hash)

    async def said(self, link: Link, frames: Sequence[returned.Frame]) -> None:
        """Takes what a node says of its orders: it pays, fails over or refuses. All of it, or nothing.

        Raises:
            BadRequest: not the node's order, unsigned, or (`NOT_READY`) chunks before a receipt are missing.
        """
        node_id, keys = link.node_id, self._held()
        said = [returned.said(self.streams, frame) for frame in frames]
        taken, vouchers = await self.write(lambda tx: returned.take(tx, node_id, said, keys))
        for one in taken:
            returned.note(self.metrics, node_id, one, keys.now_ms)
            if one.outcome is not None and one.outcome.reply is not None:
                link.send(one.outcome.reply)
        self._tell(vouchers)
        # Who waits for an answer does not wait for jobs that look for another node.
        for one in sorted(taken, key=lambda one: one.outcome is not None and one.outcome.reissue):
            await self._follow(one.outcome, one.receipted)
            if one.outcome is not None and isinstance(one.outcome.reply, wire.Superseded):
                await self._repeat(link, one.outcome.session_id)

    # ---- time and chain -----------------------------------------------------------------------------

    async def lapse(self, order_hash: str, now_ms: int) -> None:
        """An order whose lease ran out by now: its job goes on elsewhere, or ends. Idempotent."""
        outcome, vouchers = await self.write(
            lambda tx: self._covered(tx, returns.lapse_due(tx, order_hash, now_ms))
        )
        if outcome is not None:
            self.metrics.count("leases_lost_total")
            log.warning(Log.LEASE_LOST, job_id=outcome.job.job_id, order_hash=order_hash)
            self.streams.retire(order_hash)
        self._tell(vouchers)
        await self._follow(outcome)

    async def expire(self, job_id: str, now_ms: int) -> None:
        """A job whose time is over ends uncharged. Idempotent."""

        def work(tx: Tx) -> tuple[JobRow | None, list[Acceptance]]:
            job = jobs.find(tx, job_id)
            if job is None or job.ended_at_ms is not None:
                return None, []
            outcomes = returns.expire(tx, job, now_ms)
            return job, returned.cover(tx, outcomes, self._held())

        job, vouchers = await self.write(work)
        self._tell(vouchers)
        if job is not None:
            await self._ended(job)

    async def reissue(self, job_id: str) -> None:
        """Sends a job without an order to another node, or ends it when none is left. Idempotent."""
        counted = await self.counter.again(job_id)
        issued = await self.write(lambda tx: self._again(tx, job_id, counted))
        if isinstance(issued, dispatch.Issued):
            await self._send(issued)
        elif issued is not None:
            await self._ended(issued)

    async def restart(self) -> None:
        """After a start: no link is up, and nodes get one lease's time to come back."""
        until = self.clock() + self.terms.lease_ms
        await self.write(lambda tx: intake.restart(tx, until))

    def hang_up(self) -> None:
        """Ends all links and sends callers away who wait; their jobs go on after the restart."""
        self.links.close_all()
        self.streams.end_all()

    # ---- below: one committed transaction each, and what follows it ----------------------------------

    async def _look(self, model: str, need: Need, ticket: bytes) -> Quotes:
        return await self.read(lambda tx: self._quotes(tx, model, need, ticket))

    def _quotes(self, tx: Tx, model: str, need: Need, ticket: bytes = b"") -> Quotes:
        least = self.deployment.min_stake_atoms
        return quoting.quote(tx, model, need, now_ms=self.clock(), min_stake_atoms=least, ticket=ticket)

    def _place_all(
        self, tx: Tx, asks: Sequence[Ask]
    ) -> tuple[list[dispatch.Issued | str], budgets.Left | None]:
        placed = [self._place(tx, ask, ids.job_id(self.random(15))) for ask in asks]
        together.bound(tx, placed, asks[0].max_cost_atoms)
        fresh = [issued.session_id for issued in placed if isinstance(issued, dispatch.Issued)]
        return placed, budgets.left(tx, asks[0].key.address, fresh[-1]) if fresh else None

    def _place(self, tx: Tx, ask: Ask, job_id: str) -> dispatch.Issued | str:
        key, now = ask.key.address, self.clock()
        budgets.admit(tx, key, now)
        if (known := once.known_job(tx, ask, now, self.terms.job_timeout_ms)) is not None:
            return known
        need = quoting_rules.need_of(
            ask.payload, ask.max_cost_atoms, ask.node_id, counted=ask.counted, offer_hash=ask.offer_hash
        )
        found = self._quotes(tx, ask.model, need, job_id.encode())
        budgets.check_model(tx, key, found.model_name, found.model_id)
        job = dispatch.draft(ask, job_id, found.model_id, found.model_name, self._timing())
        return self._seat(tx, job, found, need, ask.key, ask.salt)

    def _seat(
        self, tx: Tx, job: JobRow, found: Quotes, need: Need, key: Signer, salt: bytes | None = None
    ) -> dispatch.Issued:
        able = [quote for quote in found.quotes if quote.eligible]
        if not able:
            raise BadRequest(*quoting_rules.refusal(found.quotes, need))
        prices = [
            funding_rules.Price(
                node_id=quote.listing.node_id, epoch=quote.listing.epoch, ceiling_atoms=quote.ceiling_atoms
            )
            for quote in able
        ]
        funded = funding.reserve(tx, job.key, prices, job.deadline_ms)
        seat = dispatch.Seat(
            listing=able[funded.place].listing,
            session_id=funded.session_id,
            seq=funded.seq,
            ceiling_atoms=able[funded.place].ceiling_atoms,
        )
        return dispatch.issue(tx, job, seat, key, salt or self.random(32), self.domain, self._timing())

    def _place_signed(
        self, tx: Tx, given: dispatch.Given, job_id: str, trace_id: str
    ) -> dispatch.Issued | str:
        known = jobs.order(tx, to_hex(given.order.digest(self.domain)))
        if known is not None and known.signature == given.signature:
            return known.job_id
        fresh = dispatch.draft_given(job_id, trace_id, given, self._timing())
        return dispatch.place_signed(tx, given, fresh, self.domain, self._timing())

    def _timing(self) -> dispatch.Timing:
        return dispatch.Timing(now_ms=self.clock(), terms=self.terms)

    async def _started(self, issued: dispatch.Issued | str, trace_id: str) -> Running:
        if isinstance(issued, str):
            return replace(await self.watch(issued), replayed=True)
        stream = self.streams.job(issued.job_id)
        log.info(Log.JOB_ORDERED, job_id=issued.job_id, trace_id=trace_id, node_id=issued.node_id)
        await self._send(issued)
        return Running(job_id=issued.job_id, stream=stream)

    async def _send(self, issued: dispatch.Issued) -> None:
        self.streams.bind(issued.order_hash, issued.job_id, issued.node_id, live=True)
        if self.links.send(issued.node_id, issued.frame):
            return
        # It never left, and must not leave any more: the node can not have signed anything for it.
        self._unsent.add(issued.order_hash)
        try:
            await self.refused(issued.node_id, issued.order_hash, ErrorCode.NO_NODE)
        finally:
            self._unsent.discard(issued.order_hash)

    def _held(self) -> returned.Keys:
        return returned.Keys(vault=self.vault, domain=self.domain, now_ms=self.clock())

    async def _repeat(self, link: Link, session_id: str) -> None:
        # The node now leaves a receipt out of its sums: a voucher it refused may fit.
        repeat = await self.read(lambda tx: settlement.again(tx, session_id))
        if repeat is not None:
            link.send(repeat)

    def _covered(self, tx: Tx, outcome: Outcome | None) -> tuple[Outcome | None, list[Acceptance]]:
        return outcome, returned.cover(tx, [outcome], self._held())

    async def _follow(self, outcome: Outcome | None, order_hash: str | None = None) -> None:
        if order_hash is not None:
            self.streams.drop(order_hash)
        if outcome is not None and outcome.reissue:
            await self.reissue(outcome.job.job_id)
        elif outcome is not None and outcome.ended:
            await self._ended(outcome.job)

    def _tell(self, vouchers: Iterable[Acceptance]) -> None:
        for taken in vouchers:
            self.send_voucher(taken)

    def send_voucher(self, taken: Acceptance | None) -> None:
        """Tells a node of a stored voucher; one without a link hears of it when it is back."""
        if taken is not None:
            log.info(Log.VOUCHER_SIGNED, node_id=taken.node_id, through_seq=taken.through_seq)
            self.links.send(taken.node_id, taken.frame)

    def _again(self, tx: Tx, job_id: str, counted: int | None) -> dispatch.Issued | JobRow | None:
        """The job's next order; the job when it ended for want of a node, None when it waits."""
        job = jobs.find(tx, job_id)
        key = funding.held_key(tx, self.vault, job.key) if job is not None else None
        if job is None or key is None or job.phase != JobPhase.ORDERED:
            return None
        past = jobs.orders_of(tx, job_id)
        tried = [order.node_id for order in past]
        need = quoting_rules.need_of(parse_payload(job.payload), job.max_cost_atoms, None, tried, counted)
        try:
            return self._seat(tx, job, self._quotes(tx, job.model_id, need), need, key)
        except BadRequest as problem:
            if any(order.state == jobs.OrderState.LAPSED for order in past):
                # Its first node may yet come back with a receipt signed in time.
                return None
            returns.give_up(tx, job, EndReason.NO_NODE_LEFT, problem.detail, self.clock())
            return job

    async def _ended(self, job: JobRow) -> None:
        self.metrics.count("jobs_total", task=job.task, end=job.end_reason or "")
        event = Log.JOB_DELIVERED if JobPhase(job.phase) in HAS_RESULT else Log.JOB_ENDED
        log.info(event, job_id=job.job_id, trace_id=job.trace_id, end_reason=job.end_reason)
        self.streams.end(job.job_id)

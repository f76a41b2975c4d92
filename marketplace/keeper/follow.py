"""Follows the chain: its events into the store, through every reorganisation."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from marketplace.chain.blocks import WINDOW, BlockRef, ReorgPlan
from marketplace.chain.client import ChainClient
from marketplace.chain.codec import ChainEvent
from marketplace.chain.decisions import with_receipts
from marketplace.keeper.loops import Probe, no_probe
from marketplace.protocol.errors import Broken, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.messages import SettleStatus
from marketplace.registry import rules, step
from marketplace.registry.step import Taken
from marketplace.store import events as chain_log
from marketplace.store.engine import Store
from marketplace.store.events import BlockFact, EventFact
from marketplace.store.tables import Tx
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Log

# Blocks read again with each new range: an RPC that lags may answer with no logs where there are some.
_OVERLAP: Final = 2
_RANGE: Final = 2_000
log = get_logger(__name__)


# Told in the fold's own transaction, so that no crash can part a session's money from its jobs: what the
# chain pays of a session (id) above a seq may have changed. It must use the database transaction it is given,
# and no other.
OnSettled = Callable[[Tx, str, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """Where the follower stands after a turn."""

    head: int
    cursor: int | None
    events: int = 0
    rolled_back_to: int | None = None

    @property
    def lag_blocks(self) -> int:
        """Blocks between the chain's head and what is stored."""
        return max(0, self.head - self.cursor) if self.cursor is not None else self.head


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    blocks: list[BlockFact]
    events: list[EventFact]


class Follower:
    """One per database. Every turn may be cut short anywhere; the next one goes on from what is stored."""

    def __init__(
        self,
        chain: ChainClient,
        store: Store,
        on_settled: OnSettled,
        *,
        metrics: Metrics | None = None,
        range_blocks: int = _RANGE,
        window: int = WINDOW,
        probe: Probe = no_probe,
    ) -> None:
        self._chain = chain
        self._store = store
        self._on_settled = on_settled
        self._metrics = metrics
        self._range_blocks = range_blocks
        self._window = window
        self._probe = probe
        self._start = chain.deployment.deployed_block
        self._lock = threading.Lock()
        self.last: Followed | None = None

    def step(self) -> Followed:
        """Takes in everything up to the chain's head.

        Raises:
            ChainTrouble: the chain does not answer, or moved while it was read; the next turn goes on.
            Broken: events are missing even after reading the chain from its start.
        """
        with self._lock:
            known = self._known()
            plan = self._chain.plan([(block.number, from_hex(block.hash)) for block in known])
            try:
                events = self._take_in(plan, known)
            except Broken as broken:
                log.exception(Log.CHAIN_TROUBLE, reason=broken.detail)
                # What the next turn builds on must be whole: a lagging RPC once hid an event.
                self._read_anew() if plan.rollback_to is None else self._forget()
                events = 0
            return self._report(plan, events)

    def read_anew(self) -> None:
        """Replaces the stored events by what the chain says now, and everything that follows from them."""
        with self._lock:
            self._read_anew()

    def follow_anew(self) -> None:
        """Forgets the chain from its start on; the next turn follows it as if it were new.

        The remedy for a reorganisation deeper than the stored window. What the market promised stays.
        """
        with self._lock:
            self._forget()

    def _known(self) -> list[BlockFact]:
        with self._store.reading() as db:
            return chain_log.known_blocks(db)

    def _take_in(self, plan: ReorgPlan, known: list[BlockFact]) -> int:
        count, rollback_to = 0, plan.rollback_to
        base = next((block for block in reversed(known) if block.number < plan.fetch_from), None)
        for first in range(plan.fetch_from, plan.fetch_to + 1, self._range_blocks):
            last = min(first + self._range_blocks - 1, plan.fetch_to)
            read = self._read(first, last, base, keep_from=plan.fetch_to - self._window + 1)
            taken = self._commit(read, first - 1, rollback_to)
            base, rollback_to = read.blocks[-1], None
            count += len(taken.fresh)
        return count

    def _read(self, first: int, last: int, base: BlockFact | None, *, keep_from: int) -> _Read:
        before = self._block(last)
        events = self._events(max(first - _OVERLAP, self._start), last)
        # Parents are not compared: Hardhat makes some of them up when it mines many blocks at once.
        blocks = {number: self._block(number) for number in range(max(first, min(keep_from, last)), last)}
        # The same newest block before and after, and still the block we build on: one chain all along.
        blocks[last] = self._block(last)
        if blocks[last].hash != before.hash:
            raise _moved(last)
        if base is not None and to_hex(self._block(base.number).hash) != base.hash:
            raise _moved(base.number)
        for event in events:
            if event.block_number in blocks and event.block_hash != blocks[event.block_number].hash:
                raise _moved(event.block_number)
        return _Read(
            blocks=[_block_fact(blocks[number]) for number in sorted(blocks)],
            events=[event_fact(event) for event in events],
        )

    def _commit(self, read: _Read, folded_to: int, rollback_to: int | None) -> Taken:
        self._probe("follow.read")
        with self._store.transaction() as db:
            newest = chain_log.cursor(db)
            if rollback_to is None and newest is not None and newest.number != folded_to:
                raise _contended()
            taken = step.take_in(db, read.events, cursor=folded_to, rollback_to=rollback_to)
            self._probe("follow.folded")
            self._tell(db, taken)
            self._probe("follow.told")
            chain_log.put_blocks(db, read.blocks, keep=self._window)
            self._probe("follow.stored")
        self._probe("follow.committed")
        self._log(taken, rollback_to)
        return taken

    def _tell(self, db: Tx, taken: Taken) -> None:
        for standing in taken.standings:
            self._on_settled(db, standing.session_id, standing.after_seq)

    def _read_anew(self) -> None:
        known = self._known()
        if not known:
            return
        newest, facts = known[-1], list[EventFact]()
        for first in range(self._start, newest.number + 1, self._range_blocks):
            last = min(first + self._range_blocks - 1, newest.number)
            facts += [event_fact(event) for event in self._events(first, last)]
        if to_hex(self._block(newest.number).hash) != newest.hash:
            raise _moved(newest.number)
        with self._store.transaction() as db:
            if chain_log.cursor(db) != newest:
                raise _contended()
            self._tell(db, step.replace_all(db, facts))

    def _forget(self) -> None:
        with self._store.transaction() as db:
            self._tell(db, step.take_in(db, [], cursor=self._start, rollback_to=self._start - 1))

    def _events(self, first: int, last: int) -> list[ChainEvent]:
        return with_receipts(self._chain, self._chain.events(first, last))

    def _block(self, number: int) -> BlockRef:
        found = self._chain.block(number)
        if found is None:
            raise _moved(number)
        return found

    def _report(self, plan: ReorgPlan, events: int) -> Followed:
        known = self._known()
        cursor = known[-1].number if known else None
        self.last = Followed(
            head=plan.fetch_to, cursor=cursor, events=events, rolled_back_to=plan.rollback_to
        )
        if self._metrics is not None:
            self._metrics.set("indexer_lag_blocks", self.last.lag_blocks)
        return self.last

    def _log(self, taken: Taken, rollback_to: int | None) -> None:
        if rollback_to is not None:
            log.warning(Log.CHAIN_REORGED, to_block=rollback_to, events_removed=len(taken.removed))
            self._count("reorgs_total")
        if taken.fresh:
            log.info(Log.CHAIN_FOLLOWED, block=taken.fresh[-1].block_number, events=len(taken.fresh))
        for event in taken.fresh:
            if event.name == "VoucherSettled":
                self._count("settlements_total")
            elif event.name == "VoucherSkipped":
                status = SettleStatus(event.args["status"]).name.lower()
                log.warning(Log.VOUCHER_SKIPPED, session_id=event.subject, status=status)
                self._count("vouchers_skipped_total", status=status)

    def _count(self, name: str, **labels: str) -> None:
        if self._metrics is not None:
            self._metrics.count(name, 1, **labels)


def event_fact(event: ChainEvent) -> EventFact:
    """A decoded event as the store keeps it."""
    return EventFact(
        block_number=event.block_number,
        log_index=event.log_index,
        part=event.part,
        block_hash=to_hex(event.block_hash),
        tx_hash=to_hex(event.tx_hash),
        contract=event.contract,
        name=event.name,
        subject=rules.subject(event.args),
        args=event.args,
    )


def _block_fact(block: BlockRef) -> BlockFact:
    return BlockFact(number=block.number, hash=to_hex(block.hash), timestamp=block.timestamp)


def _moved(number: int) -> ChainTrouble:
    return ChainTrouble(
        ErrorCode.CHAIN_UNAVAILABLE, f"the chain moved at block {number} while it was read", block=number
    )


def _contended() -> ChainTrouble:
    return ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "another follower writes to this database; stop one")

"""Writes for all jobs of a process: claims, chunks before they are announced, receipts with the last."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from marketplace.protocol.errors import ErrorCode, LostRace, attempted
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import HeldReceipt, Ledger, MakeReceipt, NewChunk, TakenUp

EVERY_MS: Final = 50
_MANY: Final = 16
# With news of no more jobs than this, an end does not wait for company: its buyer does.
_FEW: Final = 8

T = TypeVar("T")
Ended = Callable[[HeldReceipt | Exception], None]
_Stored = tuple[set[bytes], dict[bytes, HeldReceipt | Exception]]
_LOST: Final = LostRace(ErrorCode.LEASE_LOST, "a chunk was not stored: the worker lease was lost")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Call:
    order_hash: bytes
    call: Callable[[], None]


@dataclass(slots=True, eq=False)
class _Claim:
    order_hash: bytes
    now_ms: int
    until_ms: int
    found: TakenUp | Exception = field(default_factory=lambda: LostRace(ErrorCode.LEASE_LOST, "not claimed"))
    looked: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Ending:
    order_hash: bytes
    maker: Callable[[], MakeReceipt]
    done: Ended


class ChunkSpool:
    """Group commit of all that one process writes of its jobs.

    An engine's thread leaves chunks and receipts behind and goes on; one transaction stores all that came in
    the last `every_ms`. While there are few jobs their ends do not wait, for their buyers do. Before `start`
    and after `stop` everything is stored at once by the caller.
    """

    def __init__(
        self,
        ledger: Ledger,
        worker: str,
        announce: Callable[[Sequence[bytes]], None],
        *,
        every_ms: int = EVERY_MS,
    ) -> None:
        """`announce` gets the orders there is news of.

        `storing_nanoseconds` and `ending_nanoseconds` are CPU time spent on chunks, and on ending jobs.
        """
        self._ledger = ledger
        self._worker = worker
        self._announce = announce
        self._every_ms = every_ms
        self._items: deque[NewChunk | _Call | _Claim | _Ending] = deque()
        self._write_lock = threading.RLock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.storing_nanoseconds = self.ending_nanoseconds = self._lap_at = 0
        self._shared = 0
        self.on_lost: Callable[[bytes], None] = _nobody_asks

    def start(self) -> None:
        """Starts storing in the background."""
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stores what is left and ends the thread. Idempotent."""
        self._stopping.set()
        self._hurry.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            self.flush()

    def take_up(self, order_hash: bytes, *, now_ms: int, until_ms: int, hurry: bool = True) -> TakenUp:
        """Claims an order for this worker, and waits until that is stored with all there is to store.

        Without `hurry` it is stored when something else is, or the next pause is over.

        Raises:
            LostRace: unknown, finished, or leased to a process that may still live.
            DatabaseFailed: the ledger could not be written.
        """
        claim = _Claim(order_hash, now_ms, until_ms)
        self._items.append(claim)
        if hurry:
            self._hurry.set()
        self._go()
        claim.looked.wait()
        if isinstance(claim.found, Exception):
            raise claim.found
        return claim.found

    def put(self, chunk: NewChunk) -> None:
        """Stores a chunk soon, in the order given. `on_lost` hears of orders it was not stored for."""
        self._items.append(chunk)
        self._go()

    def then(self, order_hash: bytes, call: Callable[[], None]) -> None:
        """Calls once everything given before is stored; the order is announced after that."""
        self._items.append(_Call(order_hash, call))
        self._hurry_with_few()
        self._go()

    def end(self, order_hash: bytes, maker: Callable[[], MakeReceipt], done: Ended) -> None:
        """Signs and stores an order's receipt with everything given before; announced after `done`.

        `maker` is called before the transaction begins, what it gives inside. `done` gets the receipt once
        it is stored, or why there is none: `LostRace` when another process may end the order.
        """
        self._items.append(_Ending(order_hash, maker, done))
        self._hurry_with_few()
        self._go()

    def flush(self) -> None:
        """Stores, signs and calls everything given so far; from any thread."""
        with self._write_lock:
            items = [self._items.popleft() for _ in range(len(self._items))]
            claims = [item for item in items if isinstance(item, _Claim)]
            try:
                self._flush([item for item in items if not isinstance(item, _Claim)], claims)
            finally:
                for claim in claims:
                    claim.looked.set()

    def _flush(self, items: Sequence[NewChunk | _Call | _Ending], claims: Sequence[_Claim]) -> None:
        self._lap()
        chunks = [item for item in items if isinstance(item, NewChunk)]
        makers, ended = _prepared(item for item in items if isinstance(item, _Ending))
        self.ending_nanoseconds += self._lap()
        lost, signed = self._store(chunks, makers, claims)
        for claim in claims:
            # Whoever waits for it need not wait for what others are told.
            claim.looked.set()
        for order_hash in lost:
            self.on_lost(order_hash)
        self.storing_nanoseconds += self._lap()
        for item in items:
            if isinstance(item, _Ending):
                _tried(partial(item.done, (signed | ended)[item.order_hash]))
            elif isinstance(item, _Call):
                _tried(item.call)
        self.ending_nanoseconds += self._lap()
        news = {item.order_hash: None for item in items if item.order_hash not in lost}
        self._shared = len(news)
        if news:
            self._announce(list(news))
        self.storing_nanoseconds += self._lap()

    def _lap(self) -> int:
        """CPU time of this thread since it last asked."""
        before, self._lap_at = self._lap_at, time.thread_time_ns()
        return self._lap_at - before

    def _hurry_with_few(self) -> None:
        if self._shared <= _FEW:
            self._hurry.set()

    def _go(self) -> None:
        if self._thread is None:
            self.flush()
        elif not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set() or self._items:
            self._wake.wait()
            self._wake.clear()
            self._hurry.clear()
            _tried(self.flush)
            # The first chunk after a pause goes at once; then all wait for company, a claim, or an end.
            self._hurry.wait(self._pause_seconds())

    def _pause_seconds(self) -> float:
        """Up to four times as long with many jobs: each has news now and then only, and commits are dear."""
        if not self._shared:
            return 0
        return self._every_ms * (1 + min(3, self._shared / _MANY)) / 1000

    def _store(
        self, chunks: Sequence[NewChunk], makers: Mapping[bytes, MakeReceipt], claims: Sequence[_Claim]
    ) -> _Stored:
        """Stores all in one transaction; should that fail, the chunks in one and the rest each in its own."""
        if not (chunks or makers or claims):
            return set(), {}
        written = _tried(partial(self._write, chunks, makers, claims))
        if not isinstance(written, Exception):
            return written
        if not (makers or claims):
            return {chunk.order_hash for chunk in chunks}, {}
        lost, _ = self._store(chunks, {}, ())
        for claim in claims:
            self._claim(claim)
        # An answer whose end is not stored must not be signed without it.
        return lost, {
            order_hash: _LOST if order_hash in lost else self._sign(order_hash, make)
            for order_hash, make in makers.items()
        }

    def _write(
        self, chunks: Sequence[NewChunk], makers: Mapping[bytes, MakeReceipt], claims: Sequence[_Claim]
    ) -> _Stored:
        signed: dict[bytes, HeldReceipt | Exception] = {}
        found: list[TakenUp | Exception] = []
        with self._ledger.jobs.page(self._worker) as page:
            lost = page.add(chunks) if chunks else set()
            self.storing_nanoseconds += self._lap()
            for order_hash, make in makers.items():
                try:
                    signed[order_hash] = page.end(order_hash, make)
                except LostRace as error:
                    signed[order_hash] = error
            for claim in claims:
                try:
                    found.append(page.take_up(claim.order_hash, now_ms=claim.now_ms, until_ms=claim.until_ms))
                except LostRace as error:
                    found.append(error)
        for claim, one in zip(claims, found, strict=True):
            claim.found = one
        if makers:
            self.ending_nanoseconds += self._lap()
        return lost, signed

    def _claim(self, claim: _Claim) -> None:
        times = {"now_ms": claim.now_ms, "until_ms": claim.until_ms}
        claim.found = _tried(partial(self._ledger.jobs.take_up, claim.order_hash, self._worker, **times))

    def _sign(self, order_hash: bytes, make: MakeReceipt) -> HeldReceipt | Exception:
        # A lease of one's own stands until somebody else has taken it, whatever the time.
        return _tried(partial(self._ledger.signing.once, order_hash, self._worker, make, now_ms=0))


def _tried(call: Callable[[], T]) -> T | Exception:
    """What a call gives, or why it failed: a full disk or one job's defect must not silence the others."""
    found = attempted(call)
    if isinstance(found, Exception) and not isinstance(found, LostRace):
        # These jobs go on once their lease has lapsed.
        log.error(Log.LOOP_FAILED, loop="spool", reason=type(found).__name__, exc_info=found)
    return found


def _prepared(endings: Iterable[_Ending]) -> tuple[dict[bytes, MakeReceipt], dict[bytes, Exception]]:
    makers: dict[bytes, MakeReceipt] = {}
    failed: dict[bytes, Exception] = {}
    for ending in endings:
        made = _tried(ending.maker)
        if isinstance(made, Exception):
            failed[ending.order_hash] = made
        else:
            makers[ending.order_hash] = made
    return makers, failed


def _nobody_asks(_order_hash: bytes) -> None:
    return

"""Stores chunks before they are announced, and ends jobs behind their last chunk; one thread for all."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import Ledger, NewChunk

EVERY_MS: Final = 50

log = get_logger(__name__)


class ChunkSpool:
    """Group commit of the chunks of all jobs of one process.

    An engine's thread leaves chunks behind and goes on; one transaction stores all that came in the last
    `every_ms`. The end of a job does not wait: its caller does. Before `start`, and after `stop`, everything
    is stored at once by the caller.
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
        self._items: deque[NewChunk | tuple[bytes, Callable[[], None]]] = deque()
        self._write_lock = threading.RLock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self.storing_nanoseconds = self.ending_nanoseconds = 0
        self.on_lost: Callable[[bytes], None] = _nobody_asks

    def start(self) -> None:
        """Starts storing in the background."""
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stores what is left and ends the thread. Idempotent."""
        self._stopping.set()
        self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def put(self, chunk: NewChunk) -> None:
        """Stores a chunk soon, in the order given. `on_lost` hears of orders it was not stored for."""
        self._items.append(chunk)
        self._go()

    def then(self, order_hash: bytes, call: Callable[[], None]) -> None:
        """Calls once everything given before is stored; the order is announced after that."""
        self._items.append((order_hash, call))
        self._ending.set()
        self._go()

    def flush(self) -> None:
        """Stores and calls everything given so far; from any thread."""
        with self._write_lock:
            began = time.thread_time_ns()
            items = [self._items.popleft() for _ in range(len(self._items))]
            chunks = [item for item in items if isinstance(item, NewChunk)]
            news = self._store(chunks) if chunks else {}
            stored = time.thread_time_ns()
            for item in items:
                if not isinstance(item, NewChunk):
                    order_hash, call = item
                    call()
                    news[order_hash] = None
            ended = time.thread_time_ns()
            if news:
                self._announce(list(news))
            self.ending_nanoseconds += ended - stored
            self.storing_nanoseconds += stored - began + time.thread_time_ns() - ended

    def _go(self) -> None:
        if self._thread is None:
            self.flush()
        elif not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        while not self._stopping.is_set() or self._items:
            self._wake.wait()
            self._wake.clear()
            self._ending.clear()
            try:
                self.flush()
            except Exception as error:  # loop edge: one job's defect must not silence the others
                log.exception(Log.LOOP_FAILED, loop="spool", reason=type(error).__name__)
            # The first chunk after a pause goes at once; the next ones wait for company, or for an end.
            if not self._stopping.is_set():
                self._ending.wait(self._every_ms / 1000)

    def _store(self, chunks: list[NewChunk]) -> dict[bytes, None]:
        hashes = dict.fromkeys(chunk.order_hash for chunk in chunks)
        try:
            lost = self._ledger.chunks.add(chunks, self._worker)
        except Exception as error:  # loop edge: a full or locked disk costs these jobs their lease, no more
            log.exception(Log.LOOP_FAILED, loop="spool", reason=type(error).__name__, orders=len(hashes))
            lost = set(hashes)
        for order_hash in lost:
            self.on_lost(order_hash)
        return {order_hash: None for order_hash in hashes if order_hash not in lost}


def _nobody_asks(_order_hash: bytes) -> None:
    return

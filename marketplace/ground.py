"""The ground a market stands on: its store, one short transaction at a time, off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from marketplace.protocol.errors import LostRace
from marketplace.store.engine import Store
from marketplace.store.tables import Tx
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

log = get_logger(__name__)
T = TypeVar("T")
_TRIES: Final = 4


class Ground:
    """A store, and the threads that write to it and read from it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # One writer thread: on SQLite writers exclude each other anyway, and a queue beats busy waiting.
        self._writer = ThreadPoolExecutor(1 if store.is_sqlite else 8, thread_name_prefix="market-write")

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Runs `work` in one transaction; again when it lost a race."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._write, work)

    async def erase(self, work: Callable[[Tx], T]) -> T:
        """As `write`; then what `work` deleted is in no file of the database any more."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._erase, work)

    async def off_loop(self, work: Callable[[], T]) -> T:
        """Runs blocking `work` in a thread."""
        return await asyncio.to_thread(work)

    async def read(self, work: Callable[[Tx], T]) -> T:
        """Runs `work` on one consistent look."""
        return await asyncio.to_thread(self._read, work)

    def close(self) -> None:
        """Waits for the writer."""
        self._writer.shutdown()

    def _write(self, work: Callable[[Tx], T]) -> T:
        for attempt in range(_TRIES):
            try:
                with self.store.transaction() as tx:
                    return work(tx)
            except LostRace as race:
                log.info(Log.RACE_LOST, reason=race.detail)
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _erase(self, work: Callable[[Tx], T]) -> T:
        done = self._write(work)
        if not self.store.scrub():
            log.warning(Log.SCRUB_WAITS)
        return done

    def _read(self, work: Callable[[Tx], T]) -> T:
        with self.store.reading() as tx:
            return work(tx)

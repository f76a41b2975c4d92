"""The ground a market stands on: its store, one short transaction at a time, off the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlalchemy.exc import DBAPIError

from marketplace.protocol.errors import LostRace
from marketplace.store.engine import Store, is_deadlock
from marketplace.store.tables import Tx
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

log = get_logger(__name__)
T = TypeVar("T")
_TRIES: Final = 4
_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    work: Callable[[Tx], Any]
    done: Future[Any] = field(default_factory=Future)


class Ground:
    """A store, and the threads that write to it and read from it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # One writer thread: on SQLite writers exclude each other anyway, and a queue beats busy waiting.
        self._writer = ThreadPoolExecutor(1 if store.is_sqlite else 8, thread_name_prefix="market-write")
        self._waiting: deque[_Waiting] = deque()

    async def write(self, work: Callable[[Tx], T]) -> T:
        """Runs `work` in one transaction, again when it lost a race; it is on disk when this returns.

        On SQLite, works that wait together share a commit; each is undone by itself when it fails.
        """
        loop = asyncio.get_running_loop()
        if not self.store.is_sqlite:
            return await loop.run_in_executor(self._writer, self._write, work)
        waiting = _Waiting(work)
        self._waiting.append(waiting)
        self._writer.submit(self._write_waiting)
        found: T = await asyncio.wrap_future(waiting.done)
        return found

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

    def _write_waiting(self) -> None:
        """Stores what waits now. For each a turn is asked for; one that finds nothing left does nothing."""
        found = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
        some = [one for one in found if one.done.set_running_or_notify_cancel()]
        for one in self._together(some) if len(some) > 1 else some:
            try:
                one.done.set_result(self._write(one.work))
            except Exception as error:  # noqa: BLE001  # whatever it is, it is its caller's
                one.done.set_exception(error)

    def _together(self, some: list[_Waiting]) -> list[_Waiting]:
        """Stores all in one transaction; gives those that lost a race there."""
        made: dict[_Waiting, Any] = {}
        lost: list[_Waiting] = []
        try:
            with self.store.together() as part:
                for one in some:
                    try:
                        with part() as tx:
                            what = one.work(tx)
                        made[one] = what
                    except LostRace:
                        lost.append(one)
                    except Exception as error:  # noqa: BLE001  # its caller's, not the others'
                        one.done.set_exception(error)
        except Exception as error:  # noqa: BLE001  # what was not committed is done for nobody
            for one in some:
                if not one.done.done():
                    one.done.set_exception(error)
            return []
        for one, what in made.items():
            one.done.set_result(what)
        return lost

    def _write(self, work: Callable[[Tx], T]) -> T:
        for attempt in range(_TRIES):
            try:
                with self.store.transaction() as tx:
                    return work(tx)
            except (LostRace, DBAPIError) as race:
                if isinstance(race, DBAPIError) and not is_deadlock(race):
                    raise
                log.info(Log.RACE_LOST, reason=str(race))
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

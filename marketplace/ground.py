"""The ground a market stands on: its store, one short transaction at a time, off the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from marketplace.protocol.errors import LostRace, attempted
from marketplace.store.engine import Store
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

    def tell(self, what: Any) -> None:
        """Gives its caller what came of it, or the error."""
        if isinstance(what, Exception):
            self.done.set_exception(what)
        else:
            self.done.set_result(what)


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
            one.tell(attempted(partial(self._write, one.work)))

    def _together(self, some: list[_Waiting]) -> list[_Waiting]:
        """Stores all in one transaction; gives those that lost a race there."""
        made = attempted(partial(self._parts, some))
        if isinstance(made, Exception):
            # What was not committed is done for nobody.
            made = dict.fromkeys(some, made)
        lost = [one for one, what in made.items() if isinstance(what, LostRace)]
        for one, what in made.items():
            if one not in lost:
                one.tell(what)
        return lost

    def _parts(self, some: list[_Waiting]) -> dict[_Waiting, Any]:
        with self.store.together() as part:
            return {one: attempted(partial(_in, part, one.work)) for one in some}

    def _write(self, work: Callable[[Tx], T]) -> T:
        for attempt in range(_TRIES):
            try:
                return _in(self.store.transaction, work)
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
        return _in(self.store.reading, work)


def _in(begin: Callable[[], AbstractContextManager[Tx]], work: Callable[[Tx], T]) -> T:
    with begin() as tx:
        return work(tx)

"""A real gateway in a thread of its own, for commands that ask one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from marketplace.dispatch.terms import Terms
from tests.flow.gateway import Gateway, gateway


@dataclass
class Served:
    """The gateway and the loop it runs on."""

    gateway: Gateway
    loop: asyncio.AbstractEventLoop

    def run(self, work: Any) -> Any:
        """Result of a coroutine on the gateway's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


class WallClock:
    """Visits are signed by the machine's clock."""

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000


@contextlib.contextmanager
def served(path: Path, terms: Terms | None = None) -> Iterator[Served]:
    started: Future[Served] = Future()
    stop = asyncio.Event()

    async def serve() -> None:
        async with gateway(path, clock=WallClock(), terms=terms) as made:
            started.set_result(Served(made, asyncio.get_running_loop()))
            await stop.wait()

    thread = Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    found = started.result(30)
    try:
        yield found
    finally:
        found.loop.call_soon_threadsafe(stop.set)
        thread.join()

"""Runs steps over and over, and remembers when each last succeeded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.errors import ChainTrouble, WattError
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

Step = Callable[[], object] | Callable[[], Awaitable[object]]
# Called at named points between two effects; tests raise there what a power cut would do.
Probe = Callable[[str], None]

_MOST_BACKOFF_MS: Final = 30_000

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopHealth:
    """How a loop does. `failures` counts the failed turns since the last good one."""

    name: str
    every_ms: int
    last_success_ms: int | None = None
    failures: int = 0
    problem: str | None = None

    def is_ready(self, now_ms: int, *, slack_ms: int) -> bool:
        """Whether a turn succeeded within its period and `slack_ms`."""
        return self.last_success_ms is not None and now_ms - self.last_success_ms <= self.every_ms + slack_ms


class LoopBoard:
    """Health of all loops of a process."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._health: dict[str, LoopHealth] = {}

    def health(self) -> list[LoopHealth]:
        """Every loop that was started, by name."""
        return [self._health[name] for name in sorted(self._health)]

    def started(self, name: str, every_ms: int) -> None:
        """A loop is about to take its first turn."""
        self._health[name] = LoopHealth(name=name, every_ms=every_ms)

    def succeeded(self, name: str) -> None:
        """A turn ended well."""
        every_ms = self._health[name].every_ms
        self._health[name] = LoopHealth(name=name, every_ms=every_ms, last_success_ms=self._now_ms())

    def failed(self, name: str, problem: str) -> int:
        """A turn failed; returns how many did in a row."""
        last = self._health[name]
        self._health[name] = LoopHealth(
            name=name,
            every_ms=last.every_ms,
            last_success_ms=last.last_success_ms,
            failures=last.failures + 1,
            problem=problem,
        )
        return last.failures + 1


async def run_loop(name: str, step: Step, every_ms: int, stop: asyncio.Event, *, board: LoopBoard) -> None:
    """Takes turns until `stop` is set; a failed turn is logged and tried again, ever more slowly.

    Args:
        name: for logs and `/readyz`.
        step: a turn; a plain function runs in a thread, a coroutine function here.
        every_ms: pause between the end of a turn and the next; doubled by each failure, up to 30 s.
        stop: ends the loop after the turn at hand.
        board: where the loop's health is kept.
    """
    board.started(name, every_ms)
    log.info(Log.STARTED, loop=name)
    while not stop.is_set():
        failures = await _turn(name, step, board)
        pause_ms = every_ms if not failures else min(every_ms << min(failures, 10), _MOST_BACKOFF_MS)
        await _pause(max(pause_ms, every_ms), stop)
    log.info(Log.STOPPED, loop=name)


def no_probe(_point: str) -> None:
    """The probe of everyday: nothing happens."""


async def _turn(name: str, step: Step, board: LoopBoard) -> int:
    try:
        result = step() if inspect.iscoroutinefunction(step) else await asyncio.to_thread(step)
        if inspect.isawaitable(result):
            await result
    except ChainTrouble as trouble:
        log.warning(Log.CHAIN_TROUBLE, loop=name, reason=trouble.detail)
        return board.failed(name, trouble.detail)
    except Exception as error:  # loop edge: whatever one turn meets, the next one is due
        log.exception(Log.LOOP_FAILED, loop=name)
        return board.failed(name, error.detail if isinstance(error, WattError) else type(error).__name__)
    board.succeeded(name)
    return 0


async def _pause(milliseconds: int, stop: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(stop.wait(), milliseconds / 1000)
    except TimeoutError:
        return

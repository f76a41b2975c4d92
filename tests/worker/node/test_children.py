"""How soon a worker process is started again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from worker.node import children
from worker.node.children import Child, ChildSpec


class Ends(ChildSpec):
    """A process that ends at once."""

    def command(self) -> list[str]:
        return [sys.executable, "-S", "-c", "pass"]


class Heard:
    """A log that keeps how long each restart waits."""

    def __init__(self, number: int) -> None:
        self.pauses: list[float] = []
        self.enough = asyncio.Event()
        self._number = number

    def info(self, _event: str, **_values: Any) -> None:
        """A start or a stop."""

    def error(self, _event: str, *, restart_in_seconds: float, **_values: Any) -> None:
        self.pauses.append(restart_in_seconds)
        if len(self.pauses) >= self._number:
            self.enough.set()


async def pauses(monkeypatch: pytest.MonkeyPatch, number: int, worked: Callable[[int], bool]) -> list[float]:
    """Seconds that the first so many restarts wait."""
    heard = Heard(number)
    monkeypatch.setattr(children, "log", heard)
    spec = Ends(name="infer", app="-", queue="-", pool="-", concurrency=1)
    child = Child(spec, environment={}, on_exit=worked)
    await child.start()
    watching = asyncio.create_task(child.watch())
    async with asyncio.timeout(20):
        await heard.enough.wait()
    watching.cancel()
    await child.stop(grace_seconds=5)
    return heard.pauses[:number]


async def test_worker_that_fails_at_its_start_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await pauses(monkeypatch, 3, lambda _pid: False) == [0.0, 0.5, 1.0]


async def test_worker_that_had_finished_work_is_started_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await pauses(monkeypatch, 5, lambda _pid: True) == [0.0] * 5

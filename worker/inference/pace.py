"""How long a step takes, to end before a deadline and not just after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_MEMORY: Final = 0.8


class Pace:
    """Step durations, the slow ones remembered longer."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._step_ms = 0.0
        self._started_ms = 0

    def start(self) -> None:
        """A step begins."""
        self._started_ms = self._now_ms()

    def finish(self) -> None:
        """A step has ended."""
        self._step_ms = max(self._now_ms() - self._started_ms, self._step_ms * _MEMORY)

    def is_late(self, stop_at_ms: int) -> bool:
        """Whether another step would not end before `stop_at_ms`."""
        return self._now_ms() + self._step_ms >= stop_at_ms

"""What a worker process counted since it started, as plain numbers another process can read."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Protocol

from marketplace.protocol.annex import EnergyMethod

# Upper bounds, milliseconds; the last bucket has none.
FIRST_TOKEN_MS: Final = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000)


class Done(Protocol):
    """What is counted of a job that ended."""

    @property
    def failed(self) -> bool:
        """Whether it came to nothing."""

    @property
    def units_in(self) -> int:
        """Input units billed."""

    @property
    def units_out(self) -> int:
        """Output units billed."""

    @property
    def device_microseconds(self) -> int:
        """Device time."""

    @property
    def energy_millijoules(self) -> int:
        """Energy."""

    @property
    def energy_method(self) -> EnergyMethod:
        """How the energy figure came about."""


class Stats:
    """Counters of one process. Safe from many threads, cheap enough for every chunk."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens_written = 0
        self._tokens: Counter[tuple[str, str]] = Counter()
        self._jobs: Counter[tuple[str, str]] = Counter()
        self._device_microseconds: Counter[str] = Counter()
        self._energy_millijoules: Counter[str] = Counter()
        self._first: dict[str, list[int]] = {}
        self._first_ms: Counter[str] = Counter()

    def wrote(self, tokens: int) -> None:
        """Output tokens that went out in a chunk."""
        with self._lock:
            self._tokens_written += tokens

    def first_token(self, task: str, milliseconds: int) -> None:
        """Time from the order's acceptance to its first chunk."""
        with self._lock:
            counts = self._first.setdefault(task, [0] * (len(FIRST_TOKEN_MS) + 1))
            counts[bisect_left(FIRST_TOKEN_MS, milliseconds)] += 1
            self._first_ms[task] += max(0, milliseconds)

    def ended(self, task: str, done: Done) -> None:
        """A job was signed for."""
        with self._lock:
            self._jobs[task or "unknown", "failed" if done.failed else "done"] += 1
            if done.failed:
                return
            self._tokens[task, "in"] += done.units_in
            self._tokens[task, "out"] += done.units_out
            self._device_microseconds[task] += done.device_microseconds
            self._energy_millijoules[done.energy_method] += done.energy_millijoules

    def read(self) -> dict[str, Any]:
        """All counters, as JSON takes them."""
        with self._lock:
            return {
                "tokens_written": self._tokens_written,
                "tokens": _listed(self._tokens),
                "jobs": _listed(self._jobs),
                "device_microseconds": dict(self._device_microseconds),
                "energy_millijoules": dict(self._energy_millijoules),
                "first_token": {
                    task: {"counts": list(counts), "sum_ms": self._first_ms[task]}
                    for task, counts in self._first.items()
                },
            }


def _listed(counter: Counter[tuple[str, str]]) -> list[Sequence[str | int]]:
    return [[*key, number] for key, number in sorted(counter.items())]

"""Device time and energy of jobs that share one engine's steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from marketplace.protocol.annex import EnergyMethod
from worker.metering.energy import Counters, DeclaredSource, EnergyBook, EnergySource, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one job used. Attested by the node, not proven."""

    device_microseconds: int
    energy_millijoules: int
    energy_method: EnergyMethod


@dataclass(slots=True)
class Tally:
    """Running sums of one job."""

    device_nanoseconds: int = 0
    energy_microjoules: int = 0

    def reading(self, method: EnergyMethod) -> Reading:
        """Sums so far; both round up, so work never reads as nothing."""
        return Reading(
            device_microseconds=-(-self.device_nanoseconds // 1000),
            energy_millijoules=-(-self.energy_microjoules // 1000),
            energy_method=method,
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """Clocks and counters at the start of a step."""

    cpu_nanoseconds: int
    wall_nanoseconds: int
    counters: Counters


class StepMeter:
    """Measures engine steps and shares each between its jobs by the tokens it computed for them.

    Device time is CPU time by `cpu_clock`, in nanoseconds.
    """

    def __init__(
        self,
        source: EnergySource | None = None,
        *,
        cpu_clock: Callable[[], int] = time.thread_time_ns,
        wall_clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._source = source or DeclaredSource()
        self._cpu_clock = cpu_clock
        self._wall_clock = wall_clock

    @property
    def method(self) -> EnergyMethod:
        """Source of the energy figures."""
        return self._source.method

    def start(self) -> Mark:
        """Marks the begin of a step."""
        return Mark(self._cpu_clock(), self._wall_clock(), self._source.read())

    def finish(self, mark: Mark, shares: Sequence[tuple[Tally, int]]) -> None:
        """Adds the step since `mark` to each tally, in proportion to its tokens; sums stay exact."""
        cpu = self._cpu_clock() - mark.cpu_nanoseconds
        wall = self._wall_clock() - mark.wall_nanoseconds
        energy = self._source.microjoules(Window(mark.counters, self._source.read(), cpu, wall))
        tokens = [count for _, count in shares]
        if isinstance(self._source, EnergyBook):
            self._source.batch = len(shares)
        parts = zip(shares, split(cpu, tokens), split(energy, tokens), strict=True)
        for (tally, _), own_cpu, own_energy in parts:
            tally.device_nanoseconds += own_cpu
            tally.energy_microjoules += own_energy


def cpu_clock(threads: int) -> Callable[[], int]:
    """CPU time of the calling thread, or of the process when an engine computes on several threads.

    The latter counts the helpers, and whatever else the process did meanwhile.
    """
    return time.thread_time_ns if threads == 1 else time.process_time_ns


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Shares of `total` by weight, whole numbers that add up to it (zero weights: nothing)."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    shares, before, seen = [], 0, 0
    for weight in weights:
        seen += weight
        until = total * seen // whole
        shares.append(until - before)
        before = until
    return shares

"""Where energy figures come from: counters where there are any, else a declared figure, else nothing.

A figure without its method is worthless, so the two always travel together: `nvml` is read from the GPU's
counter, `rapl` from the processor's, `model` is declared watts times CPU time, `none` is an honest zero.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from marketplace.protocol.annex import EnergyMethod
from worker.metering.nvml import NvmlCounters

POWERCAP = Path("/sys/class/powercap")
Counters = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of work between two readings of a source's counters."""

    before: Counters
    after: Counters
    cpu_nanoseconds: int
    wall_nanoseconds: int


class EnergySource(Protocol):
    """Turns a stretch of work into microjoules."""

    @property
    def method(self) -> EnergyMethod:
        """How the figures come about."""

    def read(self) -> Counters:
        """Counters as they stand now."""

    def drawn_microjoules(self, before: Counters, after: Counters) -> int:
        """What the devices drew between two readings, whoever used it; 0 without a counter."""

    def microjoules(self, window: Window) -> int:
        """Energy of the work done in the window."""


def open_book(*, milliwatts_per_core: int = 0, gpu: str | None = None) -> EnergyBook:
    """The account of a process over its best source; arguments as of `choose_source`."""
    source = choose_source(milliwatts_per_core=milliwatts_per_core, gpu=gpu)
    return EnergyBook(source, gpu=NvmlCounters.open(gpu) if gpu else None)


def choose_source(
    *,
    milliwatts_per_core: int = 0,
    gpu: str | None = None,
    powercap: Path = POWERCAP,
    cores: int | None = None,
) -> EnergySource:
    """Best source this machine has for the work of one process.

    Args:
        milliwatts_per_core: declared draw of a busy core, for a machine without counters.
        gpu: UUID of the GPU the work runs on; None when it runs on the processor.
        powercap: where Linux shows RAPL.
        cores: of this machine; RAPL's figure is shared by them.
    """
    packages = _readable_packages(powercap)
    rapl = RaplSource(packages, cores=cores or os.cpu_count() or 1) if packages else None
    counters = NvmlCounters.open(gpu) if gpu else None
    nvml = NvmlSource(counters) if counters else None
    if nvml and rapl:
        return BothSources(nvml, rapl)
    # Without its GPU's counter, a processor's figure would pass for the whole.
    measured = nvml or (None if gpu else rapl)
    return measured or DeclaredSource(milliwatts_per_core)


class RaplSource:
    """Energy counters of the processor packages.

    The counters see the whole package. Work is charged its share of the core time the package had
    (`cpu / (wall x cores)`), so engines on one machine never add up to more than was drawn, and the idle
    draw of cores they did not use is charged to nobody.
    """

    method: EnergyMethod = "rapl"

    def __init__(self, packages: tuple[Path, ...], *, cores: int) -> None:
        self._counters = tuple(package / "energy_uj" for package in packages)
        self._ranges = tuple(_number(package / "max_energy_range_uj") for package in packages)
        self._cores = cores

    def read(self) -> Counters:
        """Each package's counter, microjoules."""
        return tuple(_number(counter) for counter in self._counters)

    def drawn_microjoules(self, before: Counters, after: Counters) -> int:
        """Each counter starts again from zero past its range."""
        pairs = zip(before, after, self._ranges, strict=True)
        return sum((now - then) % (limit + 1) if now < then else now - then for then, now, limit in pairs)

    def microjoules(self, window: Window) -> int:
        """Share of what the packages drew."""
        drawn = self.drawn_microjoules(window.before, window.after)
        return min(drawn, drawn * window.cpu_nanoseconds // max(1, window.wall_nanoseconds * self._cores))


class NvmlSource:
    """The energy counter of one GPU, which works for this process alone."""

    method: EnergyMethod = "nvml"

    def __init__(self, counters: NvmlCounters) -> None:
        self._counters = counters

    def read(self) -> Counters:
        """Millijoules since the driver was loaded."""
        return (self._counters.millijoules(),)

    def drawn_microjoules(self, before: Counters, after: Counters) -> int:
        """A driver that was loaded anew starts from zero; what it drew before is lost, never negative."""
        return 1000 * max(0, after[0] - before[0])

    def microjoules(self, window: Window) -> int:
        """All of it: whatever the GPU draws during a step, it draws for the step."""
        return self.drawn_microjoules(window.before, window.after)


class BothSources:
    """GPU and processor together."""

    method: EnergyMethod = "nvml+rapl"

    def __init__(self, nvml: EnergySource, rapl: EnergySource) -> None:
        self._nvml, self._rapl = nvml, rapl

    def read(self) -> Counters:
        """The GPU's counter, then the processor's."""
        return (*self._nvml.read(), *self._rapl.read())

    def drawn_microjoules(self, before: Counters, after: Counters) -> int:
        """Sum of both."""
        nvml = self._nvml.drawn_microjoules(before[:1], after[:1])
        return nvml + self._rapl.drawn_microjoules(before[1:], after[1:])

    def microjoules(self, window: Window) -> int:
        """Sum of both."""
        times = (window.cpu_nanoseconds, window.wall_nanoseconds)
        nvml = self._nvml.microjoules(Window(window.before[:1], window.after[:1], *times))
        return nvml + self._rapl.microjoules(Window(window.before[1:], window.after[1:], *times))


class DeclaredSource:
    """Declared draw of a core under load times CPU time; undeclared: zero, and says `none`."""

    def __init__(self, milliwatts_per_core: int = 0) -> None:
        self.method: EnergyMethod = "model" if milliwatts_per_core else "none"
        self._milliwatts = milliwatts_per_core

    def read(self) -> Counters:
        """Nothing to read."""
        return ()

    def drawn_microjoules(self, before: Counters, after: Counters) -> int:  # noqa: ARG002 - no counter
        """Nobody measures what is drawn."""
        return 0

    def microjoules(self, window: Window) -> int:
        """Milliwatts times nanoseconds are picojoules; a microjoule has a million."""
        return self._milliwatts * window.cpu_nanoseconds // 1_000_000


class EnergyBook:
    """A source that keeps account: what was drawn since the start, and how much of it jobs were charged.

    The difference is the idle share: waiting, loading, and other programs on the same counter. It belongs to
    the node and to no job. Engines of one process share one book. `batch` is the size of the last step.
    """

    def __init__(self, source: EnergySource, *, gpu: NvmlCounters | None = None) -> None:
        """`gpu` is the GPU the energy is of, for its other sensors."""
        self._source = source
        self.gpu = gpu
        self._lock = threading.Lock()
        self._last = source.read()
        self._drawn = 0
        self._charged = 0
        self.batch = 0

    @property
    def method(self) -> EnergyMethod:
        """How the figures come about."""
        return self._source.method

    def read(self) -> Counters:
        """Counters as they stand now."""
        return self._source.read()

    def drawn_microjoules(self, before: Counters, after: Counters) -> int:
        """As the source says."""
        return self._source.drawn_microjoules(before, after)

    def microjoules(self, window: Window) -> int:
        """Energy of a window, and a line in the book."""
        energy = self._source.microjoules(window)
        with self._lock:
            self._charged += energy
        return energy

    def balance(self) -> tuple[int, int]:
        """Microjoules charged to jobs, and idle; read it more often than a counter wraps (minutes)."""
        with self._lock:
            now = self._source.read()
            self._drawn += self._source.drawn_microjoules(self._last, now)
            self._last = now
            return self._charged, max(0, self._drawn - self._charged)


def _readable_packages(powercap: Path) -> tuple[Path, ...]:
    # Top-level zones only ("intel-rapl:0"): the nested ones ("intel-rapl:0:0") are parts of them.
    zones: Sequence[Path] = sorted(powercap.glob("intel-rapl:[0-9]*")) if powercap.is_dir() else []
    return tuple(zone for zone in zones if zone.name.count(":") == 1 and _is_readable(zone))


def _is_readable(zone: Path) -> bool:
    # Since CVE-2020-8694 the counter is root-only on most systems: being there is not being readable.
    try:
        _number(zone / "energy_uj")
        _number(zone / "max_energy_range_uj")
    except (OSError, ValueError):
        return False
    return True


def _number(file: Path) -> int:
    return int(file.read_text())

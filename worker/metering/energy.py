"""Where energy figures come from: a counter when there is one, else a declared figure, else nothing.

A figure without its method is worthless, so the two always travel together: `rapl` is read from the
processor's counters, `model` is declared watts times CPU time, `none` is an honest zero.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from marketplace.protocol.annex import EnergyMethod

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of work between two readings of a counter."""

    before: int
    after: int
    cpu_nanoseconds: int
    wall_nanoseconds: int


class EnergySource(Protocol):
    """Turns a stretch of work into microjoules."""

    @property
    def method(self) -> EnergyMethod:
        """How the figures come about."""

    def read(self) -> int:
        """Counter as it stands now."""

    def microjoules(self, window: Window) -> int:
        """Energy of the work done in the window."""


def choose_source(
    *, milliwatts_per_core: int = 0, powercap: Path = POWERCAP, cores: int | None = None
) -> EnergySource:
    """Best source this machine has: RAPL, else the declared figure, else none."""
    packages = _readable_packages(powercap)
    if packages:
        return RaplSource(packages, cores=cores or os.cpu_count() or 1)
    return DeclaredSource(milliwatts_per_core)


class RaplSource:
    """Energy counters of the processor packages.

    The counters see the whole package. Work is charged its share of the core time the package had
    (`cpu / (wall x cores)`), so engines on one machine never add up to more than was drawn, and the idle
    draw of cores they did not use is charged to nobody.
    """

    method: EnergyMethod = "rapl"

    def __init__(self, packages: tuple[Path, ...], *, cores: int) -> None:
        self._counters = tuple(package / "energy_uj" for package in packages)
        self._range = sum(_number(package / "max_energy_range_uj") for package in packages)
        self._cores = cores

    def read(self) -> int:
        """Sum of the packages' counters, microjoules."""
        return sum(_number(counter) for counter in self._counters)

    def microjoules(self, window: Window) -> int:
        """Share of what the packages drew."""
        drawn = window.after - window.before
        if drawn < 0:
            # A counter started again from zero. With several packages the true wrap is smaller than the
            # summed range; the remainder keeps the figure non-negative and below one full range.
            drawn %= max(1, self._range)
        return min(drawn, drawn * window.cpu_nanoseconds // max(1, window.wall_nanoseconds * self._cores))


class DeclaredSource:
    """Declared draw of a core under load times CPU time; undeclared: zero, and says `none`."""

    def __init__(self, milliwatts_per_core: int = 0) -> None:
        self.method: EnergyMethod = "model" if milliwatts_per_core else "none"
        self._milliwatts = milliwatts_per_core

    def read(self) -> int:
        """Nothing to read."""
        return 0

    def microjoules(self, window: Window) -> int:
        """Milliwatts times nanoseconds are picojoules; a microjoule has a million."""
        return self._milliwatts * window.cpu_nanoseconds // 1_000_000


def _readable_packages(powercap: Path) -> tuple[Path, ...]:
    # Top-level zones only ("intel-rapl:0"): the nested ones ("intel-rapl:0:0") are parts of them.
    zones = sorted(powercap.glob("intel-rapl:[0-9]*")) if powercap.is_dir() else []
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

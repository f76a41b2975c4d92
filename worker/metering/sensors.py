"""Memory and temperature of the machine, where it tells them."""

from __future__ import annotations

import os
from pathlib import Path

THERMAL = Path("/sys/class/thermal")
STATM = Path("/proc/self/statm")


def resident_bytes(statm: Path = STATM) -> int | None:
    """Memory this process holds; None where there is no /proc."""
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def processor_celsius(thermal: Path = THERMAL) -> int | None:
    """The hottest zone of the kernel's; None where it shows none."""
    found = [_celsius(zone / "temp") for zone in thermal.glob("thermal_zone*")] if thermal.is_dir() else []
    return max((value for value in found if value is not None), default=None)


def _celsius(file: Path) -> int | None:
    try:
        return int(file.read_text()) // 1000
    except (OSError, ValueError):
        return None

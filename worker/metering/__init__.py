"""What a job used: device time and energy, each reading naming its source."""

from worker.metering.energy import (
    DeclaredSource,
    EnergyBook,
    EnergySource,
    RaplSource,
    Window,
    choose_source,
    open_book,
)
from worker.metering.meter import Reading, StepMeter, Tally, cpu_clock, split
from worker.metering.stats import Stats

__all__ = [
    "DeclaredSource",
    "EnergyBook",
    "EnergySource",
    "RaplSource",
    "Reading",
    "Stats",
    "StepMeter",
    "Tally",
    "Window",
    "choose_source",
    "cpu_clock",
    "open_book",
    "split",
]

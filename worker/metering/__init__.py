"""What a job used: device time and energy, each reading naming its source."""

from worker.metering.energy import DeclaredSource, EnergySource, RaplSource, Window, choose_source
from worker.metering.meter import Reading, StepMeter, Tally, cpu_clock, split

__all__ = [
    "DeclaredSource",
    "EnergySource",
    "RaplSource",
    "Reading",
    "StepMeter",
    "Tally",
    "Window",
    "choose_source",
    "cpu_clock",
    "split",
]

"""One GPU's counters through NVIDIA's management library; package `nvidia-ml-py`, the extra `gpu`."""

from __future__ import annotations

from typing import Any, Self

from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

log = get_logger(__name__)


class NvmlCounters:
    """Energy, memory and temperature of one GPU. A reading that fails repeats the last one."""

    def __init__(self, library: Any, handle: Any) -> None:
        """`library` is the module `pynvml`, initialised; `handle` one of its devices."""
        self._library = library
        self._handle = handle
        self._millijoules = int(library.nvmlDeviceGetTotalEnergyConsumption(handle))

    @classmethod
    def open(cls, uuid: str) -> Self | None:
        """Counters of the GPU with this UUID; None without library, driver, GPU or counter.

        Volta and later count energy.
        """
        try:
            import pynvml  # noqa: PLC0415 - an optional package
        except ImportError:
            log.warning(Log.METER_MISSING, meter="nvml", reason="nvidia-ml-py is not installed")
            return None
        try:
            pynvml.nvmlInit()
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
        except pynvml.NVMLError as error:
            log.warning(Log.METER_MISSING, meter="nvml", reason=str(error))
            return None

    def millijoules(self) -> int:
        """Energy since the driver was loaded."""
        try:
            self._millijoules = int(self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._library.NVMLError as error:
            log.warning(Log.METER_MISSING, meter="nvml", reason=str(error))
        return self._millijoules

    def memory_bytes(self) -> int | None:
        """Memory in use on the GPU, by whomever."""
        try:
            return int(self._library.nvmlDeviceGetMemoryInfo(self._handle).used)
        except self._library.NVMLError:
            return None

    def celsius(self) -> int | None:
        """Temperature of the GPU."""
        try:
            sensor = self._library.NVML_TEMPERATURE_GPU
            return int(self._library.nvmlDeviceGetTemperature(self._handle, sensor))
        except self._library.NVMLError:
            return None

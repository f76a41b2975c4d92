"""Ends a worker whose engine stands still, so that its jobs go on elsewhere.

A thread that hangs in a driver or a deadlock cannot be stopped, a process can. What follows is what follows a
crash: the daemon frees the jobs, and they go on behind their last stored chunk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final

from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

_EVERY_SECONDS: Final = 1.0

log = get_logger(__name__)


class Watchdog:
    """Looks once a second how long the engines have been at one step."""

    def __init__(
        self,
        step_seconds: Callable[[], float],
        most_seconds: float,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """`most_seconds` 0: nothing is ever too long. `end` ends the process at once, with a status."""
        self._step_seconds = step_seconds
        self._most_seconds = most_seconds
        self._end = end
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Starts looking in the background."""
        if self._most_seconds:
            self._thread.start()

    def stop(self) -> None:
        """Stops looking. Idempotent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def check(self) -> None:
        """Ends the process if a step takes too long."""
        seconds = self._step_seconds()
        if seconds > self._most_seconds:
            log.error(Log.ENGINE_STUCK, seconds=round(seconds))
            self._end(os.EX_SOFTWARE)

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            self.check()

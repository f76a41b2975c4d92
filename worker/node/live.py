"""What the infer process counts, in a file the daemon and `watt node top` read."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

_EVERY_SECONDS: Final = 1.0
_STALE_MS: Final = 10_000

log = get_logger(__name__)


class LiveFile:
    """Writes counters once a second. A file, because every broker has one beside it."""

    def __init__(
        self, path: Path, read: Callable[[], Mapping[str, object]], now_ms: Callable[[], int]
    ) -> None:
        self._path = path
        self._read = read
        self._now_ms = now_ms
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live", daemon=True)

    def start(self) -> None:
        """Starts writing in the background."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        """Writes a last time and stops. Idempotent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def write(self) -> None:
        """Replaces the file; readers see the former or the new one, whole."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({"at_ms": self._now_ms(), **self._read()}))
        fresh.replace(self._path)

    def _run(self) -> None:
        while True:
            try:
                self.write()
            except OSError as error:
                log.warning(Log.LOOP_FAILED, loop="live", reason=type(error).__name__)
            if self._stop.wait(_EVERY_SECONDS):
                return


def read_live(path: Path, now_ms: int) -> dict[str, Any] | None:
    """Counters of the infer process; None when it is away or has not written lately."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if now_ms - int(found["at_ms"]) <= _STALE_MS else None

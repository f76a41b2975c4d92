"""Long work at the terminal: how far it is, on stderr, and a first Ctrl-C that lets it end well."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from marketplace.cli import screen

_LINE_SECONDS: Final = 5.0


@contextmanager
def gently_stopped(what: str) -> Iterator[Callable[[], bool]]:
    """Whether somebody pressed Ctrl-C, as a question; pressed twice it ends the command at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(_signal: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        screen.note(f"Finishing {what} under way; Ctrl-C again ends at once. What was bought is kept.")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


class Meter:
    """Tells how far it is: one changing line on a terminal, else a line every few seconds.

    Args:
        total: units in all; `done` of them were done before.
    """

    def __init__(self, what: str, total: int, done: int, money: screen.Currency) -> None:
        self._what, self._total, self._before, self._money = what, total, done, money
        self._began = self._told = time.monotonic()
        self._live = sys.stderr.isatty()

    def tell(self, done: int, failed: int, spent_atoms: int) -> None:
        """Shows a new standing."""
        now = time.monotonic()
        if not self._live and now - self._told < _LINE_SECONDS:
            return
        self._told = now
        text = self._text(done, failed, spent_atoms, now - self._began)
        if self._live:
            sys.stderr.write(f"\r\x1b[2K{text}")
            sys.stderr.flush()
        else:
            screen.note(text)

    def close(self) -> None:
        """Leaves the line."""
        if self._live and self._told > self._began:
            sys.stderr.write("\n")

    def _text(self, done: int, failed: int, spent_atoms: int, seconds: float) -> str:
        left, rate = self._total - done - failed, (done + failed - self._before) / max(seconds, 0.001)
        parts = [f"{done}/{self._total} {self._what}", f"{self._money.show(spent_atoms)}", f"{rate:.1f}/s"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{int(left / rate)} s left"] if rate and left else []
        return " · ".join(parts)

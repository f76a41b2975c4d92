"""Tiny real processes to supervise."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from marketplace.local.child import Command

STAYS = "import time\nprint('up', flush=True)\ntime.sleep(600)"
STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{STAYS}"
# Its child is in a session of its own, as a node's Celery workers are.
LEAVES_A_SESSION = (
    "import subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    + STAYS
)
BREAKS = "print('the disk is full', flush=True)\nraise SystemExit(3)"


def wait_for(true: Callable[[], bool], seconds: float = 20) -> None:
    """Real processes take real time; this is the longest they may."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def command(folder: Path, name: str, program: str, *, restart: bool = False) -> Command:
    """A Python one-liner as a command of ours."""
    log = folder / f"{name}.log"
    return Command(name=name, argv=[sys.executable, "-c", program], cwd=folder, log=log, restart=restart)


class Recorder:
    """A screen that remembers."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.problems: list[tuple[str, list[str], str]] = []
        self.steps: list[tuple[str, str]] = []

    def begin(self, name: str, detail: str = "") -> None:
        self.steps.append((name, "begin"))

    def update(self, detail: str) -> None:
        self.steps.append(("", detail))

    def done(self, detail: str) -> None:
        self.steps.append(("done", detail))

    def failed(self, detail: str) -> None:
        self.steps.append(("failed", detail))

    def note(self, text: str, **values: object) -> None:
        self.notes.append(text)

    def problem(self, text: str, lines: object = (), hint: str = "") -> None:
        self.problems.append((text, list(lines), hint))  # type: ignore[call-overload]

    def close(self) -> None:
        self.steps.append(("", "closed"))

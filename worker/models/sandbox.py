"""Starts the process that converts model files of other kinds, and tells what came of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from worker.models.errors import ModelError, ModelErrorCode

_SECONDS: Final = 7_200
_ROOT: Final = Path(__file__).resolve().parents[2]


def convert_gguf(source: Path, target: Path, progress: Callable[[str], None]) -> None:
    """Writes the model of a GGUF file as safetensors into `target`, an empty folder.

    Raises:
        ModelError: not a model that is read here, or reading it tried what a file must not do.
    """
    command = [sys.executable, "-P", "-m", "worker.models.convert", str(source), str(target)]
    with tempfile.TemporaryDirectory(prefix="watt-convert-") as home:
        # Nothing of the node's environment: its keys are in there.
        environment = {"PATH": os.defpath, "HOME": home, "TMPDIR": str(target), "PYTHONPATH": str(_ROOT)}
        environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        progress(f"converting {source.name} in a process of its own")
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            detail = f"{source.name} was not converted within {_SECONDS} s."
            raise ModelError(ModelErrorCode.INCOMPLETE, detail) from error
    for line in done.stdout.splitlines():
        progress(line)
    if done.returncode:
        raise _told(source, done.returncode, done.stderr)


def _told(source: Path, status: int, stderr: str) -> ModelError:
    last = (stderr.strip().splitlines() or [""])[-1]
    code, tab, detail = last.partition("\t")
    if tab and code in set(ModelErrorCode):
        return ModelError(ModelErrorCode(code), detail)
    reason = last or f"status {status}"
    return ModelError(ModelErrorCode.INCOMPLETE, f"{source.name} could not be converted: {reason}.")

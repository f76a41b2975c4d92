"""Figures as a file, with what they were taken of and where."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.assure.figures import Part

ROOT: Final = Path(__file__).resolve().parents[2]


def write(name: str, parts: Sequence[Part], folder: str = "build") -> Path:
    """Writes `FOLDER/NAME.json` and returns its path."""
    path = ROOT / folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report(parts), indent=1, ensure_ascii=False) + "\n")
    return path


def report(parts: Sequence[Part]) -> dict[str, Any]:
    """The figures, and of what and where they were taken."""
    dirty = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": _git("rev-parse", "HEAD") + ("+changes" if dirty else ""),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "figures": [{"part": part.name, **figure.row()} for part in parts for figure in part.figures],
    }


def _git(*arguments: str) -> str:
    return subprocess.run(
        ("git", *arguments), cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()

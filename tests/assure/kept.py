"""Long work in parts that are kept: a run that was cut short goes on where it stopped."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Final

from tests.assure.mutation import digest
from tests.assure.tools import BUILD, ROOT

_SOURCES: Final = ("contracts", "tests/contracts", "hardhat.config.js", "foundry.toml", "package.json")


class Parts:
    """Results by name under build/assure, of these contracts, tests and settings only."""

    def __init__(self, name: str, settings: str, total: int, root: Path = ROOT, home: Path = BUILD) -> None:
        self._folder = home / f"{name}-{settings}-{digest(root, _SOURCES)}"
        self._name, self._total, self._done = name, total, 0
        self._telling = Lock()

    def get(self, part: str, make: Callable[[], str]) -> str:
        """What `make` gave for the part, now or in an earlier run; says how far the whole is."""
        place = self._folder / part.replace("/", "_")
        if not place.exists():
            text = make()
            place.parent.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: the run may end while this is written.
            half = place.with_suffix(".half")
            half.write_text(text)
            half.rename(place)
        with self._telling:
            self._done += 1
            print(f"{self._name} {self._done}/{self._total}: {part}", file=sys.stderr, flush=True)
        return place.read_text()

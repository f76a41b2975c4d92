"""What a run has found so far, on disk, so that it can be cut short and continued."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from tests.assure.mutants.bench import Code, Verdict


class Journal:
    """Verdicts, one a line, and compiled mutants, one a file. Both paths must say of which sources."""

    def __init__(self, codes: Path, verdicts: Path) -> None:
        self._codes = codes
        self._verdicts = verdicts
        self._lock = threading.Lock()
        self._codes.mkdir(parents=True, exist_ok=True)
        self._verdicts.parent.mkdir(parents=True, exist_ok=True)

    def verdicts(self) -> dict[str, Verdict]:
        """By mutant; a line that a killed run left half written counts for nothing."""
        if not self._verdicts.exists():
            return {}
        text = self._verdicts.read_text()
        lines = text.splitlines()[: text.count("\n")]
        if lines and not text.endswith("\n"):
            self._verdicts.write_text("".join(f"{line}\n" for line in lines))
        found = [Verdict(**json.loads(line)) for line in lines]
        return {verdict.id: verdict for verdict in found}

    def add(self, verdict: Verdict) -> None:
        """Keeps a verdict."""
        with self._lock, self._verdicts.open("a") as out:
            out.write(json.dumps(asdict(verdict)) + "\n")

    def code(self, mutant_id: str, build: Callable[[], Code | None]) -> Code | None:
        """What the compiler made of a mutant, now or in an earlier run; None: it does not compile."""
        place = self._codes / f"{mutant_id}.json"
        if not place.exists():
            half = place.with_suffix(".half")
            half.write_text(json.dumps(build()))
            half.rename(place)
        kept: Code | None = json.loads(place.read_text())
        return kept

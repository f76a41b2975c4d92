"""What a node is told to serve, as it stands in its ledger; processes meet there and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from worker.ledger import Ledger
from worker.models.rules import Serving, plain

SERVING: Final = "models.serving"
_PROBLEM: Final = "models.problem"


class ServingBook:
    """Typed view of the ledger's notes about models."""

    def __init__(self, ledger: Ledger) -> None:
        self._notes = ledger.notes

    def stored(self) -> list[dict[str, Any]]:
        """What was told so far, for `rules.servings`."""
        return self._notes.get_json(SERVING) or []

    def tell(self, items: Sequence[Serving]) -> None:
        """Tells the node; a running one follows within a second or two, another at its start."""
        self.note_problem("")
        self._notes.put_json(SERVING, plain(items))

    @property
    def problem(self) -> str:
        """Why the node does not serve all it was told; empty when it does."""
        return self._notes.get(_PROBLEM) or ""

    def note_problem(self, text: str) -> None:
        """Remembers it."""
        self._notes.put(_PROBLEM, text)

"""Scores in millionths, and which of them are too close to call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import Field

from marketplace.protocol.tasks.base import Row, Strict

# Labels whose probabilities are this close may swap on other hardware: nobody is to be blamed for either
# order. SmolLM2 in bfloat16 was off its float32 by up to 16,000.
NEAR_TIE_MILLIONTHS: Final = 50_000


class Score(Strict):
    """What one label got."""

    label: str
    millionths: int


class ScoredRow(Row):
    """Labels of one input, best first."""

    scores: tuple[Score, ...] = Field(min_length=1)


def scored(labels: Sequence[str], millionths: Sequence[int], top: int | None = None) -> dict[str, Any]:
    """A row's content: labels by falling score, equal ones in the order given; at most `top`."""
    order = sorted(range(len(labels)), key=lambda i: (-millionths[i], i))[:top]
    return {"scores": [{"label": labels[i], "millionths": millionths[i]} for i in order]}


def near_tie(millionths: Sequence[int], within: int = NEAR_TIE_MILLIONTHS) -> bool:
    """Whether the first of these falling scores is too close to the second to call."""
    return len(millionths) > 1 and millionths[0] - millionths[1] < within


def shown_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its best label, and whether that is a near-tie, said in so many words."""
    scores = row["scores"]
    tie = near_tie([score["millionths"] for score in scores])
    return {"index": row["index"], "label": scores[0]["label"], "near_tie": tie, "scores": scores}

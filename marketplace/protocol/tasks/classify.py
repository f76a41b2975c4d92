"""`classify`: which of the buyer's own labels fits each text, without training (zero-shot)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from marketplace.protocol.answers import Answer
from marketplace.protocol.tasks.base import (
    MAX_INPUTS,
    TEMPLATE_UNITS,
    Label,
    Payload,
    Text,
    rows_misfit,
    text_units,
)
from marketplace.protocol.tasks.scores import ScoredRow, shown_row


def _distinct(labels: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(labels)) < len(labels):
        raise ValueError("a label is named twice")
    return labels


class ClassifyPayload(Payload):
    """Probability of each label, by the log-probability of the label after text and `question`."""

    task: Literal["classify"] = "classify"
    input: tuple[Text, ...] = Field(min_length=1, max_length=MAX_INPUTS, strict=False)
    labels: Annotated[tuple[Label, ...], AfterValidator(_distinct)] = Field(
        min_length=2, max_length=64, strict=False
    )
    question: Label = "Category"

    @property
    def most_units_in(self) -> int:
        """Each text is read with the question and every label."""
        around = text_units(self.question, TEMPLATE_UNITS) + sum(text_units(label) for label in self.labels)
        return sum(text_units(text) + around for text in self.input)

    def misfit(self, answer: Answer, *, whole: bool = True) -> str | None:
        """Every label once for each text."""
        problem = rows_misfit(answer, ScoredRow, len(self.input), whole=whole)
        wanted = sorted(self.labels)
        if problem is None and any(sorted(_labels(row)) != wanted for row in answer.rows):
            return "a row does not score the labels that were asked for"
        return problem

    @classmethod
    def shown(cls, answer: Answer) -> dict[str, Any]:
        """Best label of each text, with all scores."""
        return {"results": [shown_row(row) for row in answer.rows]}


def _labels(row: dict[str, Any]) -> list[str]:
    return [score["label"] for score in row["scores"]]

"""`rerank`: documents by how well they explain a query."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from marketplace.protocol.answers import Answer
from marketplace.protocol.tasks.base import (
    MAX_INPUTS,
    TEMPLATE_UNITS,
    Payload,
    Row,
    Text,
    rows_misfit,
    text_units,
)
from marketplace.protocol.tasks.scores import near_tie

# As for labels; here bfloat16 was off float32 by up to 58,000, either way.
NEAR_TIE_MILLIONTHS: Final = 150_000


class RerankPayload(Payload):
    """Mean log-probability of the query's tokens after each document."""

    task: Literal["rerank"] = "rerank"
    query: Text
    documents: tuple[Text, ...] = Field(min_length=1, max_length=MAX_INPUTS, strict=False)

    @property
    def most_units_in(self) -> int:
        """Each document is read with the query."""
        query = text_units(self.query, TEMPLATE_UNITS)
        return sum(text_units(document) + query for document in self.documents)

    def misfit(self, answer: Answer, *, whole: bool = True) -> str | None:
        """One score a document."""
        return rows_misfit(answer, RankedRow, len(self.documents), whole=whole)

    @classmethod
    def shown(cls, answer: Answer) -> dict[str, Any]:
        """Documents by their index, best first; a near-tie may as well stand behind the next."""
        rows = sorted(answer.rows, key=lambda row: (-row["millionths"], row["index"]))
        scores = [row["millionths"] for row in rows]
        ties = [near_tie(scores[i : i + 2], NEAR_TIE_MILLIONTHS) for i, _ in enumerate(scores)]
        return {"results": [{**row, "near_tie": tie} for row, tie in zip(rows, ties, strict=True)]}


class RankedRow(Row):
    """Score of one document: millionths of a natural logarithm, below 0; higher is better."""

    millionths: int

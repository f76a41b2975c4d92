"""`embed`: text embeddings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from marketplace.protocol.answers import Answer
from marketplace.protocol.tasks.base import MAX_INPUTS, Payload, Text, text_units


class EmbedPayload(Payload):
    """Text embeddings, one vector an input, in order."""

    task: Literal["embed"] = "embed"
    input: tuple[Text, ...] = Field(min_length=1, max_length=MAX_INPUTS, strict=False)

    @property
    def most_units_in(self) -> int:
        """Bytes of all texts, and the few tokens around each."""
        return sum(text_units(text) for text in self.input)

    def misfit(self, answer: Answer, *, whole: bool = True) -> str | None:
        """One vector a text."""
        got, wanted = len(answer.vectors), len(self.input)
        if got > wanted or (whole and got < wanted):
            return f"it has {got} vectors for {wanted} texts"
        return "it holds text" if answer.text else None

    @classmethod
    def shown(cls, answer: Answer) -> dict[str, Any]:
        """Vectors as lists of numbers."""
        return {"embeddings": answer.floats()}

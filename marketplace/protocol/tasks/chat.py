"""`chat`: text generation."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints

from marketplace.protocol.answers import Answer
from marketplace.protocol.tasks.base import TEMPLATE_UNITS, Payload, Strict, text_units

MAX_MESSAGES: Final = 1024
MAX_OUTPUT_TOKENS: Final = 32_768
_MESSAGE_UNITS: Final = 16


class ChatMessage(Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatPayload(Payload):
    """Text generation. Temperature and top-p in thousandths; temperature 0 is greedy."""

    task: Literal["chat"] = "chat"
    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=MAX_MESSAGES, strict=False)
    max_tokens: int = Field(ge=1, le=MAX_OUTPUT_TOKENS)
    temperature_milli: int = Field(default=0, ge=0, le=2000)
    top_p_milli: int = Field(default=1000, ge=1, le=1000)
    seed: int | None = Field(default=None, ge=0, lt=1 << 64)
    stop: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=4, strict=False
    )

    @property
    def most_units_in(self) -> int:
        """Bytes of all turns, and what a chat template adds."""
        return sum(text_units(turn.content, _MESSAGE_UNITS) for turn in self.messages) + TEMPLATE_UNITS

    @property
    def most_units_out(self) -> int:
        """The longest answer asked for."""
        return self.max_tokens

    def misfit(self, answer: Answer, *, whole: bool = True) -> str | None:
        """A text and how it ended, nothing else."""
        if whole and answer.finish is None:
            return "the text has no end"
        return "it holds vectors or rows" if answer.vectors or answer.rows else None

    @classmethod
    def shown(cls, answer: Answer) -> dict[str, Any]:
        """Text and finish reason."""
        return {"text": answer.text, "finish": answer.finish}

"""`chat`: text generation."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from marketplace.protocol.answers import Answer
from marketplace.protocol.tasks.base import TEMPLATE_UNITS, Payload, Strict, text_units
from marketplace.protocol.tasks.logprobs import MAX_TOP_LOGPROBS, logprobs_misfit

MAX_MESSAGES: Final = 1024
MAX_OUTPUT_TOKENS: Final = 32_768
_MESSAGE_UNITS: Final = 16


class ChatMessage(Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatPayload(Payload):
    """Text generation. Temperature and top-p in thousandths; temperature 0 is greedy.

    `logprobs` asks for the log-probability of every token, end tokens apart, and of so many likeliest in
    its place.
    """

    task: Literal["chat"] = "chat"
    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=MAX_MESSAGES, strict=False)
    max_tokens: int = Field(ge=1, le=MAX_OUTPUT_TOKENS)
    temperature_milli: int = Field(default=0, ge=0, le=2000)
    top_p_milli: int = Field(default=1000, ge=1, le=1000)
    seed: int | None = Field(default=None, ge=0, lt=1 << 64)
    stop: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=4, strict=False
    )
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    @model_serializer(mode="wrap")
    def _as_asked(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A request without log-probabilities keeps the bytes that it had before there were any."""
        written: dict[str, Any] = fields(self)
        if self.logprobs is None:
            written.pop("logprobs", None)
        return written

    @property
    def most_units_in(self) -> int:
        """Bytes of all turns, and what a chat template adds."""
        return sum(text_units(turn.content, _MESSAGE_UNITS) for turn in self.messages) + TEMPLATE_UNITS

    @property
    def most_units_out(self) -> int:
        """The longest answer asked for."""
        return self.max_tokens

    def misfit(self, answer: Answer, *, whole: bool = True) -> str | None:
        """A text and how it ended, with log-probabilities where they were asked for; nothing else."""
        if whole and answer.finish is None:
            return "the text has no end"
        if answer.vectors or answer.rows:
            return "it holds vectors or rows"
        return logprobs_misfit(answer, self.logprobs, whole=whole)

    @classmethod
    def shown(cls, answer: Answer) -> dict[str, Any]:
        """Text and finish reason, and log-probabilities if there are."""
        told = {"logprobs": answer.logprobs} if answer.logprobs else {}
        return {"text": answer.text, "finish": answer.finish, **told}

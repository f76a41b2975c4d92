"""OpenAI's request bodies into payloads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import (
    BLANK_MODEL,
    MAX_INPUTS,
    MAX_MESSAGES,
    MAX_OUTPUT_TOKENS,
    MAX_TOP_LOGPROBS,
    ChatMessage,
    ChatPayload,
    EmbedPayload,
    Payload,
    build_payload,
)

# No control characters: PostgreSQL keeps no zero byte in text.
PLAIN: Final = r"^[^\x00-\x1f]*$"
P = TypeVar("P", ChatPayload, EmbedPayload)
DEFAULT_MAX_TOKENS: Final = 256
MAX_CHOICES: Final = 32
_U64: Final = (1 << 64) - 1
# Parameters that would change the answer, and the value at which they do nothing.
WITH_EFFECT: Final[dict[str, tuple[object, ...]]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "dimensions": (),
}


class TextPart(BaseModel):
    """A text part of a message."""

    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """One message; `developer` means `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]


RETAIN: Final = "How long input and output are kept, as in 1h; as the header x-watt-retain."


class StreamOptions(BaseModel):
    """Usage is always sent; the option is accepted for its own sake."""

    include_usage: bool = True


class Call(BaseModel):
    """What every body has; `with_effect` are parameters it does not know, and the values it may leave out."""

    model_config = ConfigDict(extra="allow")
    with_effect: ClassVar[Mapping[str, tuple[object, ...]]] = WITH_EFFECT

    model: str = Field(min_length=1, max_length=128, pattern=PLAIN)
    max_cost: str | float | None = Field(default=None, description="Most this call may cost, in token units.")
    node: int | None = Field(default=None, ge=1, lt=1 << 32, description="The only node wanted.")
    retain: str | None = Field(default=None, max_length=16, description=RETAIN)

    def refuse_unsupported(self) -> None:
        """Raises `BadRequest` for a parameter that would change the answer and is not supported."""
        for name, value in (self.model_extra or {}).items():
            if name in self.with_effect and value is not None and value not in self.with_effect[name]:
                raise BadRequest(ErrorCode.UNSUPPORTED, f"{name} is not supported", param=name)


class Generation(Call):
    """What every generation of text is asked with."""

    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)

    def chat(
        self,
        turns: Iterable[ChatMessage],
        *,
        max_tokens: int,
        seed: int,
        stop: str | Sequence[str] | None = None,
        logprobs: int | None = None,
    ) -> ChatPayload:
        """The canonical request. Raises `BadRequest` when it cannot be expressed."""
        temperature = 1.0 if self.temperature is None else self.temperature
        top_p = 1.0 if self.top_p is None else self.top_p
        return _built(
            ChatPayload,
            model=BLANK_MODEL,
            messages=tuple(turns),
            max_tokens=max_tokens,
            temperature_milli=round(temperature * 1000),
            top_p_milli=max(1, round(top_p * 1000)),
            seed=seed & _U64,
            stop=tuple([stop] if isinstance(stop, str) else stop or ()),
            logprobs=logprobs,
        )


class Choices(Generation):
    """A generation that may be asked for several times at once."""

    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(default=None, ge=-(1 << 63), le=_U64)
    stop: str | list[str] | None = None

    def seed_of(self, fresh_seed: int, choice: int = 0) -> int:
        """The seed of a choice: the call's, or the fresh one, and the choice's number added."""
        return ((fresh_seed if self.seed is None else self.seed) + choice) & _U64


class ChatCall(Choices):
    """Body of `POST /v1/chat/completions`."""

    messages: list[Turn] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT_TOKENS)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT_TOKENS)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    def payload(self, fresh_seed: int) -> ChatPayload:
        """The canonical request. A seed is always named, so that a second node repeats the first's answer.

        Raises:
            BadRequest: it cannot be expressed.
        """
        self.refuse_unsupported()
        if self.top_logprobs is not None and not self.logprobs:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST, "top_logprobs needs logprobs: true", param="top_logprobs"
            )
        return self.chat(
            [_message(turn) for turn in self.messages],
            max_tokens=self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS,
            seed=self.seed_of(fresh_seed),
            stop=self.stop,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    def payloads(self, fresh_seed: int) -> list[ChatPayload]:
        """One request a choice, alike but for their seeds. Raises `BadRequest`."""
        first = self.payload(fresh_seed)
        seeds = [self.seed_of(fresh_seed, choice) for choice in range(self.n or 1)]
        return [first.model_copy(update={"seed": seed}) for seed in seeds]


class EmbedCall(Call):
    """Body of `POST /v1/embeddings`."""

    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"

    def payload(self) -> EmbedPayload:
        """The canonical request. Raises `BadRequest`."""
        self.refuse_unsupported()
        texts = [self.input] if isinstance(self.input, str) else self.input
        if any(not isinstance(text, str) for text in texts):
            raise BadRequest(
                ErrorCode.UNSUPPORTED, "input must be text; token ids are not read", param="input"
            )
        if not 0 < len(texts) <= MAX_INPUTS or "" in texts:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST, f"input must be 1 to {MAX_INPUTS} non-empty texts", param="input"
            )
        return _built(EmbedPayload, model=BLANK_MODEL, input=tuple(texts))


class TaskCall(Call):
    """Body of `POST /v1/{task}` for every other task: the fields of its payload."""

    model_config = ConfigDict(extra="forbid")

    def payload(self, task: str) -> Payload:
        """The canonical request. Raises `BadRequest`."""
        return build_payload(task, BLANK_MODEL, self.model_dump(exclude=set(TaskCall.model_fields)))


def task_call(task: str, kind: type[Payload]) -> type[TaskCall]:
    """The body of a task's route, made of its payload's fields."""
    own = {
        name: (field.annotation, field)
        for name, field in kind.model_fields.items()
        if name not in Payload.model_fields
    }
    fields: dict[str, Any] = own
    return create_model(f"{task.title().replace('-', '')}Call", __base__=TaskCall, **fields)


def _message(turn: Turn) -> ChatMessage:
    content = turn.content
    text = content if isinstance(content, str) else "".join(part.text for part in content)
    role: Literal["system", "user", "assistant"] = "system" if turn.role == "developer" else turn.role
    return ChatMessage(role=role, content=text)


def _built(kind: type[P], **values: Any) -> P:
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{where}: {first['msg']}", param=where) from error

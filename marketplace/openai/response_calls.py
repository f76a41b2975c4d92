"""Bodies of OpenAI's responses route into payloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, Field, StringConstraints

from marketplace.openai import requests
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import MAX_OUTPUT_TOKENS, MAX_TOP_LOGPROBS, ChatMessage, ChatPayload

Metadata = Annotated[
    dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16),
]
LOGPROBS: Final = "message.output_text.logprobs"
_ROLES: Final[dict[object, Literal["system", "user", "assistant"]]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_TEXT_PARTS: Final = ("input_text", "output_text", "text")


class Echo(BaseModel):
    """What a response says back of its call and the payload does not hold; kept with the job.

    Attributes:
        instructed: the payload's first message is the call's `instructions`; no later response takes it over.
    """

    instructed: bool = False
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    metadata: Metadata = {}
    background: bool = False
    store: bool = True


class ResponseCall(requests.Generation):
    """Body of `POST /v1/responses`."""

    with_effect: ClassVar[Mapping[str, tuple[object, ...]]] = {
        "tools": ([],),
        "tool_choice": ("none", "auto"),
        "conversation": (),
        "prompt": (),
        "truncation": ("disabled",),
        "context_management": ([],),
        "moderation": (),
        "image": (),
        "frequency_penalty": (0,),
        "presence_penalty": (0,),
    }

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, pattern="^[A-Za-z0-9_]{1,64}$")
    max_output_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT_TOKENS)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 64)
    stop: str | list[str] | None = None
    include: list[str] | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    metadata: Metadata | None = None
    background: bool | None = None
    store: bool | None = None

    def payload(self, fresh_seed: int, earlier: Sequence[ChatMessage] = ()) -> ChatPayload:
        """The canonical request, behind the messages of the responses before it.

        Raises:
            BadRequest: it cannot be expressed.
        """
        self._refuse()
        told = self.instructions
        orders = [] if told is None else [ChatMessage(role="system", content=told)]
        wants_logprobs = LOGPROBS in (self.include or ())
        return self.chat(
            [*orders, *earlier, *_turns(self.input)],
            max_tokens=self.max_output_tokens or requests.DEFAULT_MAX_TOKENS,
            seed=fresh_seed if self.seed is None else self.seed,
            stop=self.stop,
            logprobs=(self.top_logprobs or 0) if wants_logprobs else None,
        )

    def echo(self) -> Echo:
        """What its answer says back."""
        return Echo(
            instructed=self.instructions is not None,
            previous_response_id=self.previous_response_id,
            max_output_tokens=self.max_output_tokens,
            metadata=self.metadata or {},
            background=bool(self.background),
            store=self.store is not False,
        )

    def _refuse(self) -> None:
        self.refuse_unsupported()
        asked = self.text or {}
        if asked.get("format") not in (None, {"type": "text"}):
            raise _unsupported("text.format: the engines write free text only", "text.format")
        if asked.get("verbosity") not in (None, "medium"):
            raise _unsupported("text.verbosity is not supported", "text.verbosity")
        if any(value is not None for value in (self.reasoning or {}).values()):
            raise _unsupported("reasoning is not supported", "reasoning")
        if self.top_logprobs and LOGPROBS not in (self.include or ()):
            detail = f"top_logprobs needs include: [{LOGPROBS!r}]"
            raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="top_logprobs")


def continued(payload: ChatPayload, echo: Echo, text: str) -> list[ChatMessage]:
    """The messages a later response goes on from: without the instructions, with the answer."""
    kept = payload.messages[1:] if echo.instructed else payload.messages
    return [*kept, ChatMessage(role="assistant", content=text)]


def _turns(given: str | list[dict[str, Any]]) -> list[ChatMessage]:
    if isinstance(given, str):
        return [ChatMessage(role="user", content=given)]
    if not given:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "input must hold a message", param="input")
    return [_turn(item, f"input.{place}") for place, item in enumerate(given)]


def _turn(item: dict[str, Any], where: str) -> ChatMessage:
    if item.get("type", "message") != "message":
        raise _unsupported(f"{where}: only messages are read", where)
    role = _ROLES.get(item.get("role")) if isinstance(item.get("role"), str) else None
    if role is None:
        known = ", ".join(str(name) for name in _ROLES)
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{where}.role: one of {known}", param=f"{where}.role")
    return ChatMessage(role=role, content=_content(item.get("content"), f"{where}.content"))


def _content(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{where}: text, or a list of parts", param=where)
    return "".join(_part(part, f"{where}.{place}") for place, part in enumerate(content))


def _part(part: object, where: str) -> str:
    if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS:
        raise _unsupported(f"{where}: only parts of text are read", where)
    text = part.get("text")
    if not isinstance(text, str):
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{where}.text: must be text", param=f"{where}.text")
    return text


def _unsupported(detail: str, param: str) -> BadRequest:
    return BadRequest(ErrorCode.UNSUPPORTED, detail, param=param)

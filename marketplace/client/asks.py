"""What a caller wants done, before it is known which node does it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from marketplace.client.gateway import Event
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from marketplace.protocol.payloads import (
    BLANK_MODEL,
    ChatMessage,
    Payload,
    build_payload,
    canonical_json,
    units_in_ceiling,
    units_out_ceiling,
)

DEFAULT_MAX_TOKENS: Final = 256
DEFAULT_TIMEOUT_MS: Final = 120_000
_ID_LETTERS: Final = 66
Heard = Callable[[Event], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request and its limits.

    Attributes:
        model: `0x…` id, `name@version` of the register of models, or a name that nodes use.
        body: fields of the payload apart from `v`, `task` and `model`.
        max_cost_atoms: most it may cost; None for the offer's own ceiling.
        node_id: the only node wanted; None for any.
        model_id: what `model` stood for when it was first asked for, and must still; None: whatever it means.
        timeout_ms: after this the job is free.
        max_attempts: nodes asked at most.
        heard: awaited with each event: `order` once it is signed, `job` with its id, chunks, the receipt.
    """

    task: str
    model: str
    body: Mapping[str, Any]
    max_cost_atoms: int | None = None
    node_id: int | None = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    max_attempts: int = 3
    heard: Heard | None = None
    model_id: str | None = None

    @property
    def exact_model(self) -> str | None:
        """The id of the one set of files that will do; None where a name decides."""
        is_id = self.model.startswith("0x") and len(self.model) == _ID_LETTERS
        return self.model.lower() if is_id else self.model_id

    def payload(self, model_id: str) -> Payload:
        """The request for one exact model.

        Raises:
            BadRequest: a value out of its range.
        """
        return build_payload(self.task, model_id, self.body)

    @property
    def fingerprint(self) -> str:
        """Digest of all that makes it this ask and no other."""
        asked = {
            "model": self.model,
            "max_cost_atoms": self.max_cost_atoms,
            "node_id": self.node_id,
            "payload": self.payload(BLANK_MODEL).model_dump(mode="json"),
        }
        return keccak(canonical_json(asked)).hex()


def chat_ask(
    messages: str | Sequence[Mapping[str, str]],
    *,
    model: str,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | None = None,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    **limits: Any,
) -> Ask:
    """A generation; text alone is one user message. Raises `BadRequest`.

    `logprobs` asks for the log-probability of each token, and of so many likeliest in its place.
    """
    turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    body = {
        "messages": [_turn(turn) for turn in turns],
        "max_tokens": max_tokens,
        # The payload is signed, so it holds whole thousandths.
        "temperature_milli": round(temperature * 1000),
        "top_p_milli": round(top_p * 1000),
        "seed": seed,
        "stop": list(stop),
        "logprobs": logprobs,
    }
    return _checked(Ask(task="chat", model=model, body=body, **limits))


def embed_ask(texts: str | Sequence[str], *, model: str, **limits: Any) -> Ask:
    """Vectors, one a text. Raises `BadRequest`."""
    inputs = [texts] if isinstance(texts, str) else list(texts)
    return _checked(Ask(task="embed", model=model, body={"input": inputs}, **limits))


def task_ask(body: Mapping[str, Any], *, task: str, model: str, **limits: Any) -> Ask:
    """Any task, by the fields of its payload. Raises `BadRequest`."""
    return _checked(Ask(task=task, model=model, body=dict(body), **limits))


def quote_body(ask: Ask, max_cost: str | None, *, sealed: bool = False) -> dict[str, Any]:
    """Body of `POST /v1/quotes`; of an ask that is to be sealed only how large it is."""
    body: dict[str, Any] = {"model": ask.exact_model or ask.model, "task": ask.task}
    if sealed:
        payload = ask.payload(BLANK_MODEL)
        body["units"] = {"input": units_in_ceiling(payload), "output": units_out_ceiling(payload)}
    elif ask.task not in ("chat", "embed"):
        body["body"] = dict(ask.body)
    elif ask.task == "chat":
        body["messages"] = [message.model_dump() for message in ask.body["messages"]]
        body["max_tokens"] = ask.body["max_tokens"]
    else:
        body["input"] = list(ask.body["input"])
    if max_cost is not None:
        body["max_cost"] = max_cost
    if ask.node_id is not None:
        body["node"] = ask.node_id
    return body


def _turn(turn: Mapping[str, str]) -> ChatMessage:
    try:
        return ChatMessage.model_validate(dict(turn))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"message {where}: {first['msg']}") from error


def _checked(ask: Ask) -> Ask:
    """The same ask, once its ranges are known to hold for any model."""
    ask.payload(BLANK_MODEL)
    return ask

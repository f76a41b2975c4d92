"""How a request is made of data: a task, a model, and templates for the request's fields."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, get_origin

from marketplace.client import templates
from marketplace.client.asks import Ask, chat_ask, task_ask
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import BLANK_MODEL, canonical_json, encode_payload, task_type

_CHAT: Final = frozenset(
    {
        "prompt",
        "system",
        "messages",
        "max_tokens",
        "temperature",
        "top_p",
        "seed",
        "stop",
        "logprobs",
    }
)
_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)
_FIXED: Final = frozenset({"v", "task", "model"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Makes an ask of values.

    Attributes:
        fields: templates by the name of the field they fill; of `chat` its options, and `prompt` and `system`
            or `messages`.
    """

    task: str
    model: str
    fields: Mapping[str, Any]
    timeout_seconds: int = 120

    def ask(self, values: Mapping[str, Any]) -> Ask:
        """What is asked with these values.

        Raises:
            BadRequest: a name stands for nothing, or what comes out is no request of this task.
        """
        filled = {name: templates.fill(template, values) for name, template in self.fields.items()}
        self.check_fields()
        timeout_ms = self.timeout_seconds * 1000
        if self.task == "chat":
            return _chat(filled, self.model, timeout_ms)
        return task_ask(_body(self.task, filled), task=self.task, model=self.model, timeout_ms=timeout_ms)

    def check_fields(self) -> None:
        """Whether the task has fields of these names.

        Raises:
            BadRequest: it has not, or there is no such task.
        """
        kind = task_type(self.task)
        known = _CHAT if self.task == "chat" else frozenset(kind.model_fields) - _FIXED
        for name in self.fields:
            if name not in known:
                raise BadRequest(
                    ErrorCode.INVALID_REQUEST,
                    f"{self.task} has no field {name!r}",
                    hint=f"Its fields are {', '.join(sorted(known))}.",
                )

    def to_json(self) -> dict[str, Any]:
        """What decides the answer, for comparing."""
        return {"task": self.task, "model": self.model, "fields": dict(self.fields)}


def digest_of(ask: Ask) -> str:
    """Names what is asked, apart from its limits: the same digest is the same question."""
    asked = canonical_json([ask.model, encode_payload(ask.payload(BLANK_MODEL)).decode()])
    return hashlib.sha256(asked).hexdigest()


def pinned(ask: Ask, model_id: str) -> Ask:
    """The same ask for one exact model; for whatever its name means where the id is empty."""
    return replace(ask, model_id=model_id or None)


def _chat(filled: dict[str, Any], model: str, timeout_ms: int) -> Ask:
    prompt, system = filled.pop("prompt", None), filled.pop("system", None)
    messages = filled.pop("messages", None)
    if (prompt is None) == (messages is None):
        raise _wrong("give a prompt or messages, one of them")
    if messages is None:
        turns = [("system", system)] if system is not None else []
        messages = [{"role": role, "content": text} for role, text in [*turns, ("user", prompt)]]
    are_turns = isinstance(messages, list) and all(isinstance(turn, Mapping) for turn in messages)
    if not are_turns or not messages:
        raise _wrong("messages must be a list of {role, content}")
    if not messages[-1].get("content"):
        raise _wrong("the prompt is empty")
    stop, numbers = filled.pop("stop", []), (filled.get("temperature", 0), filled.get("top_p", 1))
    if not isinstance(stop, str | list) or not all(map(_is_share, numbers)):
        raise _wrong("stop is a text or a list of texts, temperature 0 to 2, top_p 0 to 1")
    stops = [stop] if isinstance(stop, str) else stop
    return chat_ask(messages, model=model, timeout_ms=timeout_ms, stop=stops, **filled)


def _is_share(value: Any) -> bool:
    # Neither true nor infinity is a number that can be signed in thousandths.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 2


def _body(task: str, filled: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as the payload has them: one value where a list is wanted is a list of one."""
    kinds = {name: info.annotation for name, info in task_type(task).model_fields.items()}
    body: dict[str, Any] = {}
    for name, value in filled.items():
        if get_origin(kinds[name]) is tuple and not isinstance(value, list):
            body[name] = [value]
        elif kinds[name] is int and isinstance(value, str) and _NUMBER.fullmatch(value):
            body[name] = int(value)
        else:
            body[name] = value
    return body


def _wrong(what: str) -> BadRequest:
    return BadRequest(ErrorCode.INVALID_REQUEST, what)

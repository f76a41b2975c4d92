"""OpenAI's responses: whole ones, and the events of a streamed one. A response's id is its job's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from marketplace.openai.answers import Piece, logprobs_of
from marketplace.openai.response_calls import Echo
from marketplace.protocol.payloads import Answer, ChatPayload, Logprobs

_JOB: Final = "job_"
_RESPONSE: Final = "resp_"
# How a text ended: the response's status, and what it says is missing.
_ENDINGS: Final[dict[str, tuple[str, str | None]]] = {
    "stop": ("completed", None),
    "length": ("incomplete", "max_output_tokens"),
    "deadline": ("incomplete", "deadline"),
    "cancelled": ("cancelled", None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What of a response is known before its answer. `created_at` is Unix seconds."""

    job_id: str
    model: str
    created_at: int
    payload: ChatPayload
    echo: Echo


def response_id(job_id: str) -> str:
    """The id of the response that a job is."""
    return _RESPONSE + job_id.removeprefix(_JOB)


def job_id(given: str) -> str:
    """The job behind a response's id; a job's own id is taken too."""
    return _JOB + given.removeprefix(_RESPONSE).removeprefix(_JOB)


def unfinished(about: About, status: str = "in_progress") -> dict[str, Any]:
    """A response without an answer: one that runs, or that was cancelled before there was any."""
    return _response(about, status)


def answered(about: About, answer: Answer) -> dict[str, Any]:
    """A response with its answer, without usage and receipt."""
    status, missing = _ENDINGS.get(answer.finish or "", ("incomplete", answer.finish))
    return _response(
        about,
        status,
        incomplete_details={"reason": missing} if missing else None,
        output=[_message(about, answer.text, _logprobs(answer.logprobs), _item_status(status))],
    )


def failed(about: About, problem: Mapping[str, Any]) -> dict[str, Any]:
    """A response that brought no answer; `problem` is the body that an HTTP error would have."""
    error = {"code": _word(problem), "message": problem["error"]["message"], "charged": problem["charged"]}
    return _response(about, "failed", error=error, problem=dict(problem))


class Events:
    """Numbers the events of one streamed response."""

    def __init__(self, about: About) -> None:
        self._about = about
        self._number = 0
        self._begun = False

    def opening(self) -> list[dict[str, Any]]:
        """What comes before any text."""
        return [
            self._event("response.created", response=unfinished(self._about)),
            self._event("response.in_progress", response=unfinished(self._about)),
        ]

    def text(self, piece: Piece) -> list[dict[str, Any]]:
        """The next piece of the text, behind the item it belongs to."""
        told = _logprobs(piece.told)
        return [
            *self._begin(),
            self._part_event("response.output_text.delta", delta=piece.text, logprobs=told),
        ]

    def closing(self, response: dict[str, Any]) -> list[dict[str, Any]]:
        """What follows the last text; `response` is the whole one, with usage and receipt."""
        (item,) = response["output"]
        (part,) = item["content"]
        last = "response.completed" if response["status"] == "completed" else "response.incomplete"
        return [
            *self._begin(),
            self._part_event("response.output_text.done", text=part["text"], logprobs=part["logprobs"]),
            self._part_event("response.content_part.done", part=part),
            self._event("response.output_item.done", output_index=0, item=item),
            self._event(last, response=response),
        ]

    def failed(self, problem: Mapping[str, Any]) -> dict[str, Any]:
        """The last event of a response that brings no answer."""
        return self._event("response.failed", response=failed(self._about, problem))

    def broken(self, problem: Mapping[str, Any]) -> dict[str, Any]:
        """The last event of a stream that ends before its response does."""
        error = problem["error"]
        told = {name: error[name] for name in ("code", "message", "param", "hint", "charged")}
        return self._event("error", **told, request_id=problem["request_id"])

    def _begin(self) -> list[dict[str, Any]]:
        if self._begun:
            return []
        self._begun = True
        item = _message(self._about, "", [], "in_progress")
        part = item["content"].pop()
        return [
            self._event("response.output_item.added", output_index=0, item=item),
            self._part_event("response.content_part.added", part=part),
        ]

    def _part_event(self, kind: str, **values: Any) -> dict[str, Any]:
        item_id = _message_id(self._about)
        return self._event(kind, item_id=item_id, output_index=0, content_index=0, **values)

    def _event(self, kind: str, **values: Any) -> dict[str, Any]:
        event = {"type": kind, "sequence_number": self._number} | values
        self._number += 1
        return event


def _response(about: About, status: str, **more: Any) -> dict[str, Any]:
    payload, echo = about.payload, about.echo
    return {
        "id": response_id(about.job_id),
        "object": "response",
        "created_at": about.created_at,
        "status": status,
        "background": echo.background,
        "error": None,
        "incomplete_details": None,
        "instructions": payload.messages[0].content if echo.instructed else None,
        "max_output_tokens": echo.max_output_tokens,
        "metadata": echo.metadata,
        "model": about.model,
        "output": [],
        "parallel_tool_calls": True,
        "previous_response_id": echo.previous_response_id,
        "reasoning": {"effort": None, "summary": None},
        "store": echo.store,
        "temperature": payload.temperature_milli / 1000,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": payload.logprobs or 0,
        "top_p": payload.top_p_milli / 1000,
        "truncation": "disabled",
        "usage": None,
    } | more


def _message(about: About, text: str, logprobs: list[Any], status: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
    return {
        "id": _message_id(about),
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [part],
    }


def _message_id(about: About) -> str:
    return "msg_" + about.job_id.removeprefix(_JOB)


def _item_status(status: str) -> str:
    return "completed" if status == "completed" else "incomplete"


def _logprobs(told: Logprobs) -> list[Any]:
    found = logprobs_of(told)
    return found["content"] if found else []


def _word(problem: Mapping[str, Any]) -> str:
    """OpenAI's word for a failure; ours is in `problem`."""
    status = problem["status"]
    if status == 429:
        return "rate_limit_exceeded"
    return "server_error" if status >= 500 else "invalid_prompt"

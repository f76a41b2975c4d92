"""Files of requests and batches, as OpenAI shapes them: a JSON object a line, in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from marketplace.openai import answers
from marketplace.openai.problems import body_of
from marketplace.openai.requests import PLAIN, ChatCall, EmbedCall
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.protocol.payloads import Answer, Payload

CALLS: Final[dict[str, type[ChatCall] | type[EmbedCall]]] = {
    "/v1/chat/completions": ChatCall,
    "/v1/embeddings": EmbedCall,
}
# Every model's offers are looked up, and a model that nobody can run must not hold up the others.
MOST_MODELS: Final = 16
_BOM: Final = b"\xef\xbb\xbf"


class BatchStatus(StrEnum):
    """Where a batch stands, in OpenAI's words."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    CANCELLING = "cancelling"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


_S = BatchStatus
TRANSITIONS: Final[dict[BatchStatus, frozenset[BatchStatus]]] = {
    _S.VALIDATING: frozenset({_S.IN_PROGRESS, _S.CANCELLING, _S.FINALIZING}),
    _S.IN_PROGRESS: frozenset({_S.CANCELLING, _S.FINALIZING}),
    _S.CANCELLING: frozenset({_S.FINALIZING}),
    _S.FINALIZING: frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}),
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.EXPIRED: frozenset(),
}
_UNSTARTED: Final = {
    BatchStatus.EXPIRED: ("batch_expired", "The batch's time ran out before this call was made."),
    BatchStatus.CANCELLED: ("batch_cancelled", "The batch was cancelled before this call was made."),
}
OVER: Final = frozenset(status for status, after in TRANSITIONS.items() if not after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request of a file."""

    custom_id: str
    url: str
    body: dict[str, Any]


class _Line(BaseModel):
    custom_id: str = Field(min_length=1, max_length=256, pattern=PLAIN)
    method: Literal["POST"] = "POST"
    url: str
    body: dict[str, Any]


class Reader:
    """Reads a file's lines in order; remembers what no two lines may share, and what all must.

    Args:
        most_lines: lines one file may have.
        most_bytes: bytes one line may have.
    """

    def __init__(self, *, most_lines: int, most_bytes: int) -> None:
        self._most_lines, self._most_bytes = most_lines, most_bytes
        self._lines_by_id: dict[str, int] = {}
        self._models: set[object] = set()
        self.url = ""

    @property
    def requests(self) -> int:
        """How many requests were read."""
        return len(self._lines_by_id)

    def take(self, number: int, raw: bytes) -> None:
        """Reads the next line; empty ones are passed over. Raises `BadRequest` that names the line."""
        if len(raw) > self._most_bytes:
            detail = f"line {number} has more than {self._most_bytes} bytes"
            raise BadRequest(ErrorCode.BODY_TOO_LARGE, detail)
        if number > self._most_lines:
            raise BadRequest(ErrorCode.BODY_TOO_LARGE, f"more than {self._most_lines} lines in one file")
        if not raw.strip():
            return
        entry = read_entry(number, raw)
        known = self._lines_by_id.setdefault(entry.custom_id, number)
        if known != number:
            raise _bad(number, f"custom_id {entry.custom_id!r} is that of line {known} too")
        if entry.url != (self.url or entry.url):
            raise _bad(number, f"url is {entry.url}, that of the lines before is {self.url}: use two files")
        self.url = entry.url
        self._models.add(str(entry.body.get("model")))
        if len(self._models) > MOST_MODELS:
            raise _bad(number, f"more than {MOST_MODELS} models in one file: use several files")


def read_entry(number: int, raw: bytes) -> Entry:
    """A line that is not empty. Raises `BadRequest` that names it."""
    if raw.startswith(_BOM):
        raise _bad(number, "it begins with a byte order mark: save the file as plain UTF-8")
    try:
        raw.decode()
        found = from_json(raw, allow_inf_nan=False)
    except UnicodeDecodeError as error:
        raise _bad(number, "it is not UTF-8") from error
    except ValueError as error:
        raise _bad(number, f"it is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise _bad(number, "it is not a JSON object")
    try:
        line = _Line.model_validate(found)
    except ValidationError as error:
        where, why = _first(error)
        raise _bad(number, f"{where}: {why}") from error
    if line.url not in CALLS:
        raise _bad(number, f"url must be one of {', '.join(CALLS)}, is {line.url[:80]!r}")
    return Entry(custom_id=line.custom_id, url=line.url, body=line.body)


def call_of(entry: Entry) -> ChatCall | EmbedCall:
    """A line's call, read as its route reads it. Raises `BadRequest`."""
    try:
        call = CALLS[entry.url].model_validate(entry.body)
    except ValidationError as error:
        where, why = _first(error)
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{where}: {why}", param=where) from error
    if entry.body.get("stream"):
        raise BadRequest(ErrorCode.UNSUPPORTED, "a batch does not stream", param="stream")
    if entry.body.get("n") not in (None, 1):
        raise BadRequest(ErrorCode.UNSUPPORTED, "a line of a batch is one answer: n must be 1", param="n")
    return call


def payload_of(call: ChatCall | EmbedCall, fresh_seed: int) -> Payload:
    """The canonical request of a line. Raises `BadRequest`."""
    return call.payload(fresh_seed) if isinstance(call, ChatCall) else call.payload()


def answer_of(call: ChatCall | EmbedCall, job_id: str, created: int, answer: Answer) -> dict[str, Any]:
    """What the line's route answers, without usage and receipt."""
    if isinstance(call, ChatCall):
        return answers.chat_completion(job_id, call.model, created, answer)
    return answers.embeddings(call.model, answer, call.encoding_format)


def answered(line_id: str, custom_id: str, body: Mapping[str, Any]) -> bytes:
    """The line of an output file."""
    response = {"status_code": 200, "request_id": line_id, "body": body}
    return _line({"id": line_id, "custom_id": custom_id, "response": response, "error": None})


def refused(line_id: str, custom_id: str, problem: WattError) -> bytes:
    """The line of an error file for a call that brought nothing; its problem may say that it was charged."""
    param = problem.values.get("param")
    body = body_of(problem, line_id, param=param if isinstance(param, str) else None)
    response = {"status_code": problem.spec.status, "request_id": line_id, "body": body}
    charged = problem.values.get("charged") is True
    error = {"code": problem.code.value, "message": problem.detail, "charged": charged}
    return _line({"id": line_id, "custom_id": custom_id, "response": response, "error": error})


def unstarted(line_id: str, custom_id: str, ending: BatchStatus) -> bytes:
    """The line of an error file for a call that was never made."""
    code, message = _UNSTARTED[ending]
    error = {"code": code, "message": message, "charged": False}
    return _line({"id": line_id, "custom_id": custom_id, "response": None, "error": error})


def emptied(line: bytes, problem: WattError) -> bytes:
    """A line that was written before, by its names alone: what was answered is gone."""
    was = json.loads(line)
    return refused(was["id"], was["custom_id"], problem)


def _line(value: dict[str, Any]) -> bytes:
    # Escaped to ASCII: what a node answers may hold half a surrogate pair, which UTF-8 cannot carry.
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _bad(number: int, why: str) -> BadRequest:
    return BadRequest(ErrorCode.INVALID_FILE, f"line {number}: {why}", line=number)


def _first(error: ValidationError) -> tuple[str, str]:
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]

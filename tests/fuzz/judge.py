"""What every answer must be, whatever was asked: never our fault, and said in our words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from marketplace.protocol.errors import ErrorCode

PROBLEM: Final = "application/problem+json"
_CODES: Final = {code.value for code in ErrorCode}
_TOLD: Final = {
    "type": str, "title": str, "status": int, "detail": str, "code": str, "hint": str, "charged": bool | str,
    "request_id": str, "retryable": bool, "doc_url": str, "error": dict,
}  # fmt: skip
_PLAIN: Final = {"/metrics": "text/plain", "/llms.txt": "text/markdown", "/llms-full.txt": "text/markdown"}
SLOW_SECONDS: Final = 20.0


def fault_of(
    path: str, status: int, headers: Mapping[str, str], body: bytes, seconds: float = 0.0
) -> str | None:
    """What is wrong with an answer, in one sentence; None when nothing is."""
    kind = headers.get("content-type", "").partition(";")[0]
    if seconds > SLOW_SECONDS:
        return f"took {seconds:.0f} s"
    if status >= 500:
        return f"answered {status}: {body[:300].decode(errors='replace')}"
    if not headers.get("x-request-id"):
        return "has no x-request-id"
    if status >= 400:
        return _of_problem(status, kind, body)
    return _of_success(path, status, kind, body)


def _of_problem(status: int, kind: str, body: bytes) -> str | None:
    if kind != PROBLEM:
        return f"an error of type {kind or 'nothing'}"
    told = _json(body)
    if not isinstance(told, dict):
        return "an error that is not one JSON object"
    for name, wanted in _TOLD.items():
        if not isinstance(told.get(name), wanted):
            return f"an error with {name} {told.get(name)!r}"
    wrong = {
        f"an error of the unknown code {told['code']!r}": told["code"] not in _CODES,
        f"an error that says two codes, {told['code']!r} first": told["error"].get("code") != told["code"],
        f"an error that says {told['status']} and is {status}": told["status"] != status,
        f"an error charged {told['charged']!r}": told["charged"] not in (True, False, "refunded"),
    }
    return next((what for what, is_so in wrong.items() if is_so), None)


def _of_success(path: str, status: int, kind: str, body: bytes) -> str | None:
    if status == 204 or (not kind and not body):
        return None if not body else "a body with 204"
    if kind == "application/json":
        return None if _json(body) is not None or body == b"null" else "JSON that cannot be read"
    if kind == "text/event-stream":
        return _of_stream(body)
    wanted = _PLAIN.get(path)
    if kind.startswith("text/") or kind in ("application/jsonl", "application/octet-stream"):
        return None if wanted in (None, kind) else f"{kind} instead of {wanted}"
    return f"an answer of type {kind or 'nothing'}"


def _of_stream(body: bytes) -> str | None:
    if body and not body.endswith(b"\n\n"):
        return "a stream that breaks off"
    for line in body.split(b"\n"):
        if line.startswith(b"data: ") and line != b"data: [DONE]" and _json(line[6:]) is None:
            return f"a stream with {line[:80]!r}"
    return None


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None

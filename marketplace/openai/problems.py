"""Every error as one body: RFC 9457 and OpenAI's shape at once, always saying whether it was charged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from marketplace.explain import errors as pages
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError

# False is also said of a job that still runs: it is not charged yet.
Charged = bool | Literal["refunded"]
MEDIA_TYPE: Final = "application/problem+json"
_BY_STATUS: Final = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    408: ErrorCode.BODY_TOO_SLOW,
    413: ErrorCode.BODY_TOO_LARGE,
}
# As a schema for pages that describe the API; `body_of` is what writes it.
_FIELDS: Final = {
    "type": "string",
    "title": "string",
    "status": "integer",
    "detail": "string",
    "code": "string",
    "hint": "string",
    "request_id": "string",
    "retryable": "boolean",
    "doc_url": "string",
    "error": "object",
}
SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "An error (RFC 9457). `charged`: whether the call is paid for; `error`: OpenAI's shape.",
    "type": "object",
    "properties": {name: {"type": kind} for name, kind in _FIELDS.items()}
    | {"charged": {"enum": [True, False, "refunded"]}},
    "required": [*_FIELDS, "charged"],
}
_KINDS: Final = {401: "authentication_error", 402: "insufficient_funds", 429: "rate_limit_error"}


def body_of(
    error: WattError, request_id: str, *, charged: Charged = False, param: str | None = None
) -> dict[str, Any]:
    """The body of an error. Its own remedy, where it carries one, goes before its code's.

    Its values may also say that something was charged, and that a retry is safe nevertheless.
    """
    spec = error.spec
    charged = charged or error.values.get("charged") is True
    retryable = error.values.get("retryable") is True if charged else spec.retryable
    hint = str(error.values.get("hint") or spec.hint)
    kind = _KINDS.get(spec.status, "invalid_request_error" if spec.status < 500 else "server_error")
    values = {name: value for name, value in error.values.items() if isinstance(value, str | int | list)}
    return values | {
        "type": f"urn:wattline:error:{error.code}",
        "title": spec.title,
        "status": spec.status,
        "detail": error.detail,
        "code": error.code.value,
        "hint": hint,
        "charged": charged,
        "request_id": request_id,
        "retryable": retryable,
        "doc_url": pages.path(error.code),
        # OpenAI clients keep only this object, so what helps is in it too.
        "error": {
            "message": f"{error.detail} — {hint}",
            "type": kind,
            "code": error.code.value,
            "param": param,
            "hint": hint,
            "charged": charged,
            "doc_url": pages.path(error.code),
        },
    }


def headers_of(body: Mapping[str, Any]) -> dict[str, str]:
    """Headers of an error's answer: whose it is, and whether a client had better try again."""
    headers = {"x-request-id": str(body["request_id"])}
    if not body["retryable"]:
        headers["x-should-retry"] = "false"
    elif body["status"] in (429, 503):
        headers["retry-after"] = str(body.get("retry_after_seconds", 1))
    return headers


def of_status(status: int) -> BadRequest:
    """What a web framework refused by itself."""
    return BadRequest(_BY_STATUS.get(status, ErrorCode.MALFORMED_BODY))


def of_text() -> BadRequest:
    """Text that UTF-8 can not carry; JSON can spell it, and nothing of ours makes it."""
    return BadRequest(ErrorCode.INVALID_REQUEST, "text holds half a surrogate pair")


def of_validation(errors: Sequence[Any]) -> tuple[WattError, str | None]:
    """The first of what a body's model has to say, and the field it is about."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return BadRequest(ErrorCode.MALFORMED_BODY, "the body is not JSON"), None
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    if not where:
        return BadRequest(ErrorCode.MALFORMED_BODY, "the body must be one JSON object"), None
    return BadRequest(ErrorCode.INVALID_REQUEST, f"{where}: {first['msg']}"), where


def param_of(error: WattError) -> str | None:
    """The field an error is about, where it names one."""
    param = error.values.get("param")
    return param if isinstance(param, str) else None

"""Every error as one body: RFC 9457 and OpenAI's shape at once, always saying whether it was charged."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

MEDIA_TYPE: Final = "application/problem+json"
_BY_STATUS: Final = {
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.BODY_TOO_LARGE,
}
_KINDS: Final = {401: "authentication_error", 402: "insufficient_funds", 429: "rate_limit_error"}
log = get_logger(__name__)


def body_of(
    error: WattError, request_id: str, *, charged: bool = False, param: str | None = None
) -> dict[str, Any]:
    """The body of an error."""
    spec = error.spec
    kind = _KINDS.get(spec.status, "invalid_request_error" if spec.status < 500 else "server_error")
    values = {name: value for name, value in error.values.items() if isinstance(value, str | int)}
    return values | {
        "type": f"urn:wattline:error:{error.code}",
        "title": spec.title,
        "status": spec.status,
        "detail": error.detail,
        "code": error.code.value,
        "hint": spec.hint,
        "charged": charged,
        "request_id": request_id,
        "retryable": spec.retryable and not charged,
        # OpenAI clients keep only this object, so what helps is in it too.
        "error": {
            "message": f"{error.detail} — {spec.hint}",
            "type": kind,
            "code": error.code.value,
            "param": param,
            "hint": spec.hint,
            "charged": charged,
        },
    }


def response_of(
    error: WattError, request_id: str, *, charged: bool = False, param: str | None = None
) -> Response:
    """The answer to a call that failed."""
    body = body_of(error, request_id, charged=charged, param=param)
    given = error.values.get("headers")
    headers = {"x-request-id": request_id} | (given if isinstance(given, dict) else {})
    if not body["retryable"]:
        headers["x-should-retry"] = "false"
    elif error.spec.status in (429, 503):
        headers["retry-after"] = "1"
    return JSONResponse(body, error.spec.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answers every kind of error this way."""

    async def answer(request: Request, error: Exception) -> Response:
        problem, param = _read(error)
        log.info(Log.REQUEST_REFUSED, code=problem.code.value, path=request.url.path)
        response = response_of(problem, request.state.request_id, param=param)
        # A payment that was taken is told even when the call failed: its rest comes back.
        response.headers.update(getattr(request.state, "payment_headers", {}))
        return response

    for kind in (WattError, UnicodeEncodeError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def _read(error: Exception) -> tuple[WattError, str | None]:
    match error:
        case WattError():
            return error, _param(error)
        case RequestValidationError():
            return _invalid(error)
        case HTTPException():
            return BadRequest(_BY_STATUS.get(error.status_code, ErrorCode.MALFORMED_BODY)), None
        case _:
            # JSON can spell text that UTF-8 can not carry; nothing of ours makes such text.
            return BadRequest(ErrorCode.INVALID_REQUEST, "text holds half a surrogate pair"), None


def _param(error: WattError) -> str | None:
    param = error.values.get("param")
    return param if isinstance(param, str) else None


def _invalid(error: RequestValidationError) -> tuple[WattError, str | None]:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return BadRequest(ErrorCode.MALFORMED_BODY, "the body is not JSON"), None
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    if not where:
        return BadRequest(ErrorCode.MALFORMED_BODY, "the body must be one JSON object"), None
    return BadRequest(ErrorCode.INVALID_REQUEST, f"{where}: {first['msg']}"), where

"""Answers every kind of error with the one body of `marketplace.openai.problems`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from marketplace.openai import problems
from marketplace.openai.problems import MEDIA_TYPE as MEDIA_TYPE
from marketplace.openai.problems import SCHEMA as SCHEMA
from marketplace.openai.problems import Charged as Charged
from marketplace.openai.problems import body_of as body_of
from marketplace.protocol.errors import WattError
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

NAME: Final = "Problem"
# FastAPI would describe its own validation error instead, which nobody here ever gets.
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    "default": {
        "description": "Any error",
        "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{NAME}"}}},
    }
}
log = get_logger(__name__)


def response_of(
    error: WattError, request_id: str, *, charged: Charged = False, param: str | None = None
) -> Response:
    """The answer to a call that failed."""
    body = body_of(error, request_id, charged=charged, param=param)
    more = error.values.get("headers")
    headers = problems.headers_of(body) | (more if isinstance(more, dict) else {})
    return JSONResponse(body, error.spec.status, headers, MEDIA_TYPE)


def install(app: FastAPI, charge: Callable[[str], Awaitable[Charged]]) -> None:
    """Answers every kind of error this way; `charge` says what stands of a job's charge."""

    async def answer(request: Request, error: Exception) -> Response:
        problem, param = _read(error)
        log.info(Log.REQUEST_REFUSED, code=problem.code.value, path=request.url.path)
        job_id = getattr(request.state, "job_id", None)
        charged = False if job_id is None else await charge(job_id)
        if job_id is not None:
            problem.values.setdefault("job_id", job_id)
        response = response_of(problem, request.state.request_id, charged=charged, param=param)
        # A payment that was taken is told even when the call failed: its rest comes back.
        response.headers.update(getattr(request.state, "payment_headers", {}))
        return response

    for kind in (WattError, UnicodeEncodeError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def _read(error: Exception) -> tuple[WattError, str | None]:
    match error:
        case WattError():
            return error, problems.param_of(error)
        case RequestValidationError():
            return problems.of_validation(error.errors())
        case HTTPException():
            return problems.of_status(error.status_code), None
        case _:
            return problems.of_text(), None

"""Answers every kind of error with the one body of `marketplace.openai.problems`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from marketplace.client.problems import hint_of
from marketplace.openai import problems
from marketplace.protocol.errors import Broken, ErrorCode, WattError


def body_of(error: WattError, request_id: str, param: str | None = None) -> dict[str, Any]:
    """The body of an error of our own or of the gateway's, with the remedy it came with."""
    error.values["hint"] = hint_of(error)
    charged = getattr(error, "charged", False)
    return problems.body_of(error, request_id, charged=charged, param=param or problems.param_of(error))


def response_of(error: WattError, request_id: str, param: str | None = None) -> Response:
    """The answer to a call that failed."""
    body = body_of(error, request_id, param)
    return JSONResponse(body, body["status"], problems.headers_of(body), problems.MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answers every kind of error this way."""

    async def answer(request: Request, error: Exception) -> Response:
        problem, param = _read(error)
        return response_of(problem, request.state.request_id, param)

    # The last is for defects of our own: they are answered, and raised again for the log.
    for kind in (WattError, UnicodeEncodeError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)


def _read(error: Exception) -> tuple[WattError, str | None]:
    match error:
        case WattError():
            return error, None
        case RequestValidationError():
            return problems.of_validation(error.errors())
        case HTTPException():
            return problems.of_status(error.status_code), None
        case UnicodeEncodeError():
            return problems.of_text(), None
        case _:
            return Broken(ErrorCode.INTERNAL), None

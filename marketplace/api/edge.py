"""Around every request: its id, a bound on its body, its metrics, and the net under our own defects."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marketplace.api import problems
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.telemetry.logs import bound, get_logger
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Log

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{8,64}")
log = get_logger(__name__)


class Edge:
    """Outermost ASGI layer."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, max_upload_bytes: int, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._max_body_bytes, self._max_upload_bytes = max_body_bytes, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; WebSockets and lifespan pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id)
        started = time.monotonic()
        with bound(request_id=request_id):
            await self._guarded(scope, _Bounded(receive, self._limit(scope)), answer)
        self._observe(scope, answer.status, time.monotonic() - started)

    async def _guarded(self, scope: Scope, receive: _Bounded, answer: _Answer) -> None:
        try:
            if "\x00" in scope["path"]:
                await problems.response_of(BadRequest(ErrorCode.NOT_FOUND), answer.request_id)(
                    scope, receive, answer
                )
                return
            if _declared(scope) > self._limit(scope):
                problem = BadRequest(ErrorCode.BODY_TOO_LARGE, f"at most {self._limit(scope)} bytes")
                await problems.response_of(problem, answer.request_id)(scope, receive, answer)
                return
            await self._app(scope, receive, answer)
        except Exception:  # request edge: a defect of ours must still be answered, and told apart
            log.exception(Log.REQUEST_FAILED, path=scope["path"])
            if answer.status:
                raise
            broken = Broken(ErrorCode.INTERNAL)
            await problems.response_of(broken, answer.request_id)(scope, receive, answer)

    def _limit(self, scope: Scope) -> int:
        # A file goes to disk line by line; every other body is read into memory.
        return self._max_upload_bytes if scope["path"] == "/v1/files" else self._max_body_bytes

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"]
        self._metrics.count("http_requests_total", method=method, route=route, status=str(status))
        self._metrics.observe("http_request_seconds", seconds, method=method, route=route)


class _Answer:
    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self.request_id, self.status = send, request_id, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: list[Any] = message.setdefault("headers", [])
            if not any(name == b"x-request-id" for name, _ in headers):
                headers.append((b"x-request-id", self.request_id.encode()))
        await self._send(message)


class _Bounded:
    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left = receive, limit

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise HTTPException(413)
        return message


def _request_id(scope: Scope) -> str:
    given = _header(scope, b"x-request-id")
    return given if _ID.fullmatch(given) else "req_" + secrets.token_hex(12)


def _declared(scope: Scope) -> int:
    length = _header(scope, b"content-length")
    return int(length) if length.isdigit() else 0


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")

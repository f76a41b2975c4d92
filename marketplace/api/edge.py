"""Around every request: its id, limits on it, its metrics, and the net under our own defects."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marketplace.api import bodies, problems
from marketplace.api.bodies import BodyLimits
from marketplace.api.charges import Charged
from marketplace.api.limits import RateLimits
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.telemetry.logs import bound, get_logger
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Log

_ID: Final = re.compile(r"[A-Za-z0-9_.-]{8,64}")
log = get_logger(__name__)


class Edge:
    """Outermost ASGI layer."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        body_limits: BodyLimits,
        rate_limits: RateLimits,
        metrics: Metrics,
        charge: Callable[[str], Awaitable[Charged]],
    ) -> None:
        self._app, self._bodies, self._rates = app, body_limits, rate_limits
        self._metrics, self._charge = metrics, charge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; WebSockets and lifespan pass through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id, scope["state"])
        started = time.monotonic()
        with bound(request_id=request_id):
            await self._guarded(scope, receive, answer)
        self._observe(scope, answer.status, time.monotonic() - started)

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            try:
                bodies.check_head(scope, self._bodies)
                await self._rates.take(scope)
                receive = await bodies.taken(scope, receive, self._bodies)
            except BadRequest as problem:
                log.info(Log.REQUEST_REFUSED, code=problem.code.value, path=scope["path"])
                await problems.response_of(problem, answer.request_id)(scope, receive, answer)
                return
            await self._app(scope, receive, answer)
        except Exception:  # request edge: a defect of ours must still be answered, and told apart
            log.exception(Log.REQUEST_FAILED, path=scope["path"])
            if answer.status:
                raise
            response = await self._broken(scope["state"].get("job_id"), answer.request_id)
            await response(scope, receive, answer)

    async def _broken(self, job_id: str | None, request_id: str) -> Response:
        if job_id is None:
            return problems.response_of(Broken(ErrorCode.INTERNAL), request_id)
        (found,) = await asyncio.gather(self._charge(job_id), return_exceptions=True)
        # Where not even that can be read, nobody is told that a call was free.
        charged = True if isinstance(found, BaseException) else found
        broken = Broken(ErrorCode.INTERNAL, f"what became of it is at /v1/jobs/{job_id}", job_id=job_id)
        return problems.response_of(broken, request_id, charged=charged)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        method = scope["method"]
        self._metrics.count("http_requests_total", method=method, route=route, status=str(status))
        self._metrics.observe("http_request_seconds", seconds, method=method, route=route)


class _Answer:
    def __init__(self, send: Send, request_id: str, state: dict[str, Any]) -> None:
        self._send, self.request_id, self.status, self._state = send, request_id, 0, state

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: list[Any] = message.setdefault("headers", [])
            present = {name for name, _ in headers}
            wanted = {"x-request-id": self.request_id} | self._state.get("answer_headers", {})
            fresh = ((name.encode(), value.encode()) for name, value in wanted.items())
            headers.extend(pair for pair in fresh if pair[0] not in present)
        await self._send(message)


def _request_id(scope: Scope) -> str:
    given = bodies.header(scope, b"x-request-id")
    return given if _ID.fullmatch(given) else "req_" + secrets.token_hex(12)

"""Around every request: whom it is for, who may ask, a bound on its body, and its id.

Any page in a browser on this machine can send requests here, and this process spends money. Browsers name the
host they mean, so a name that only pretends to be this machine is refused, and so is every page of another.
"""

from __future__ import annotations

import hmac
import re
import secrets
from typing import Final
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.proxy import problems

HEALTH: Final = "/healthz"
_ID: Final = re.compile(r"[A-Za-z0-9_.-]{8,64}")
_HERE: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class Edge:
    """Outermost ASGI layer.

    Args:
        token: the only bearer value that is let in; None: any, or none.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, max_body_bytes: int) -> None:
        self._app, self._token, self._max_body_bytes = app, token, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; the lifespan passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = _header(scope, b"x-request-id")
        request_id = given if _ID.fullmatch(given) else "req_" + secrets.token_hex(12)
        scope.setdefault("state", {})["request_id"] = request_id
        problem = self._refusal(scope)
        if problem is not None:
            await problems.response_of(problem, request_id)(scope, receive, send)
            return
        await self._app(scope, _bounded(receive, self._max_body_bytes), _named(send, request_id))

    def _refusal(self, scope: Scope) -> BadRequest | None:
        host, origin = _header(scope, b"host"), _header(scope, b"origin")
        if _name(f"//{host}") not in _HERE or (origin and _name(origin) not in _HERE):
            what = f"Origin {origin[:80]}" if origin else f"Host {host[:80]}"
            detail = f"this proxy is for programs of this machine, not for {what}"
            hint = "Ask it as http://127.0.0.1:PORT/v1, from no web page."
            return BadRequest(ErrorCode.INVALID_REQUEST, detail, hint=hint)
        if self._token is not None and scope["path"] != HEALTH:
            kind, _, secret = _header(scope, b"authorization").partition(" ")
            if kind.lower() != "bearer":
                return BadRequest(
                    ErrorCode.MISSING_KEY, hint="Send the token that the proxy was started with."
                )
            if not hmac.compare_digest(secret.strip().encode(), self._token.encode()):
                detail, hint = "the token is another", "Send the token that the proxy was started with."
                return BadRequest(ErrorCode.UNKNOWN_KEY, detail, hint=hint)
        length = _header(scope, b"content-length")
        if length.isdigit() and int(length) > self._max_body_bytes:
            return BadRequest(ErrorCode.BODY_TOO_LARGE, f"at most {self._max_body_bytes} bytes")
        return None


def _bounded(receive: Receive, most: int) -> Receive:
    """The same body, up to so many bytes, whatever length it claims."""
    left = most

    async def next_part() -> Message:
        nonlocal left
        message = await receive()
        if message["type"] == "http.request":
            left -= len(message.get("body", b""))
            if left < 0:
                raise HTTPException(413)
        return message

    return next_part


def _named(send: Send, request_id: str) -> Send:
    """The same answer, with the id of its request."""

    async def next_part(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.setdefault("headers", [])
            if not any(name == b"x-request-id" for name, _ in headers):
                headers.append((b"x-request-id", request_id.encode()))
        await send(message)

    return next_part


def _name(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")

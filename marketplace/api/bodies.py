"""Bodies before anybody reads them: in time, of a size, as they are, and JSON that no parser chokes on."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

from marketplace.protocol.errors import BadRequest, ErrorCode

UPLOADS: Final = "/v1/files"
_TEXT: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET: Final = re.compile(rb"[\[\]{}]")
_NO_JSON: Final = re.compile(rb"NaN|Infinity")


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """What a body may be; `timeout_ms` is for all of it, `max_upload_bytes` for a form with a file.

    A parsed value takes up to 60 times the memory of the two bytes it can be written in, and all of them stay
    until the job is done: hence `max_values`.
    """

    max_bytes: int
    max_upload_bytes: int = 0
    max_depth: int = 64
    max_values: int = 50_000
    timeout_ms: int = 15_000

    def most_bytes(self, scope: Scope) -> int:
        """Largest body of a request. A file goes to disk line by line; all else is read into memory."""
        return max(self.max_bytes, self.max_upload_bytes if scope["path"] == UPLOADS else 0)


def check_head(scope: Scope, limits: BodyLimits) -> None:
    """Refuses by path and headers alone. Raises `BadRequest`."""
    if "\x00" in scope["path"]:
        raise BadRequest(ErrorCode.NOT_FOUND)
    length = header(scope, b"content-length")
    if (int(length) if length.isdigit() else 0) > limits.most_bytes(scope):
        raise _too_large(limits.most_bytes(scope))
    encoding = header(scope, b"content-encoding").strip().lower()
    if encoding not in ("", "identity"):
        raise BadRequest(ErrorCode.BODY_COMPRESSED, f"Content-Encoding is {encoding[:40]!r}")


async def taken(scope: Scope, receive: Receive, limits: BodyLimits) -> Receive:
    """The body, whole and checked, as the app receives it; forms are only bounded. Raises `BadRequest`."""
    if not _has_body(scope):
        return receive
    if header(scope, b"content-type").lower().startswith("multipart/"):
        return _form(_Bounded(receive, limits, limits.most_bytes(scope)))
    bounded, parts, last = _Bounded(receive, limits, limits.max_bytes), [], None
    while last is None:
        message = await bounded()
        parts.append(message.get("body", b""))
        last = message if not message.get("more_body") else None
    body = b"".join(parts)
    check_json(body, limits)
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    if last["type"] == "http.disconnect":
        whole = [last]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    return replay


def check_json(body: bytes, limits: BodyLimits) -> None:
    """Refuses what a parser would take for JSON and others would not, or not without end.

    Raises:
        BadRequest: no UTF-8, NaN or Infinity as numbers, nested too deep, or too many values.
    """
    if b"\x00" in body or not (body.isascii() or _is_utf8(body)):
        raise BadRequest(ErrorCode.MALFORMED_BODY, "the body is no text in UTF-8")
    few = _opened(body) <= limits.max_depth and body.count(b",") < limits.max_values
    if few and not _NO_JSON.search(body):
        return
    bare = _TEXT.sub(b'""', body)
    if _NO_JSON.search(bare):
        raise BadRequest(ErrorCode.MALFORMED_BODY, "JSON has no NaN and no Infinity")
    _check_depth(bare, limits.max_depth)
    # Each value stands behind a comma, or is the first of its list or object.
    if _opened(bare) + bare.count(b",") > limits.max_values:
        raise BadRequest(ErrorCode.BODY_TOO_LARGE, f"at most {limits.max_values} values")


def _opened(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def _check_depth(bare: bytes, max_depth: int) -> None:
    depth = 0
    for bracket in _BRACKET.findall(bare):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            raise BadRequest(ErrorCode.BODY_TOO_DEEP, f"at most {max_depth} levels")


def header(scope: Scope, name: bytes) -> str:
    """A header's first value; "" for none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


class _Bounded:
    """A body that stays inside its size and time."""

    def __init__(self, receive: Receive, limits: BodyLimits, most_bytes: int) -> None:
        self._receive, self._limits = receive, limits
        self._most = self._left = most_bytes
        self._until = asyncio.get_running_loop().time() + limits.timeout_ms / 1000
        self._ended = False

    async def __call__(self) -> Message:
        if self._ended:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            seconds = self._limits.timeout_ms / 1000
            raise BadRequest(ErrorCode.BODY_TOO_SLOW, f"the body took more than {seconds:g} s") from error
        self._ended = message["type"] != "http.request" or not message.get("more_body")
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self._most)
        return message


def _form(bounded: _Bounded) -> Receive:
    """For a parser that lets nothing out but HTTP's own exceptions."""

    async def receive() -> Message:
        try:
            return await bounded()
        except BadRequest as problem:
            raise HTTPException(problem.spec.status) from problem

    return receive


def _has_body(scope: Scope) -> bool:
    return header(scope, b"content-length") not in ("", "0") or header(scope, b"transfer-encoding") != ""


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _too_large(most_bytes: int) -> BadRequest:
    return BadRequest(ErrorCode.BODY_TOO_LARGE, f"at most {most_bytes} bytes")

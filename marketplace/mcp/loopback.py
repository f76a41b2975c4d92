"""Calls of a gateway's own HTTP API from inside its process, answers as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from starlette.types import ASGIApp, Message, Scope


class Loopback(httpx2.AsyncBaseTransport):
    """Hands requests straight to an app. httpx2's own such transport holds answers back until their end.

    Args:
        address: of the caller on whose behalf this is asked, so that its limits are the caller's.
    """

    def __init__(self, app: ASGIApp, address: tuple[str, int] | None) -> None:
        self._app, self._address = app, address or ("127.0.0.1", 0)
        self._running: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Returns once the answer has begun; its body is read from the running app."""
        exchange = _Exchange(await request.aread())
        # As a server does, the app is let finish what its caller no longer waits for: half-way is worse.
        running = asyncio.create_task(self._run(self._scope(request), exchange))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        try:
            begun = await exchange.begun
        except asyncio.CancelledError:
            exchange.leave()
            raise
        return httpx2.Response(begun["status"], headers=begun["headers"], stream=_Body(exchange))

    async def _run(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            exchange.end()

    def _scope(self, request: httpx2.Request) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.split(b"?")[0],
            "query_string": request.url.query,
            "server": (request.url.host, request.url.port),
            "client": self._address,
            "root_path": "",
        }


class _Exchange:
    """One request and its answer, between the app and who reads it."""

    def __init__(self, body: bytes) -> None:
        self.begun: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.parts: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._body: bytes | None = body
        self._gone = asyncio.Event()

    async def receive(self) -> Message:
        """The whole body, then nothing until the reader is gone."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """A part of the answer."""
        if message["type"] == "http.response.start" and not self.begun.done():
            self.begun.set_result(message)
        elif message["type"] == "http.response.body" and message.get("body"):
            self.parts.put_nowait(message["body"])

    def end(self) -> None:
        """The app has returned."""
        self._gone.set()
        self.parts.put_nowait(None)
        if not self.begun.done():
            self.begun.set_exception(httpx2.ReadError("the gateway ended without an answer"))

    def leave(self) -> None:
        """The reader is gone."""
        self._gone.set()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (part := await self._exchange.parts.get()) is not None:
            yield part

    async def aclose(self) -> None:
        self._exchange.leave()

"""`/mcp` of a gateway. The `mcp` package takes a second to load, so the server waits for its first call."""

from __future__ import annotations

import asyncio
import importlib
from importlib.util import find_spec
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from marketplace.flow import Market
from marketplace.mcp.hosted import HostedClerk
from marketplace.mcp.shop import Currency

PATH: Final = "/mcp"


def is_installed() -> bool:
    """Whether the `mcp` package is there."""
    return find_spec("mcp") is not None


class Door:
    """An ASGI app that starts its server when somebody first knocks."""

    def __init__(self, clerk: HostedClerk, *, max_body_bytes: int) -> None:
        self._clerk, self._max_body_bytes = clerk, max_body_bytes
        self._lock, self._stop = asyncio.Lock(), asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One HTTP request."""
        app = await self._opened()
        await app(scope, receive, send)

    def close(self) -> None:
        """Ends streams and sessions; calls under way are cancelled."""
        self._stop.set()

    async def aclose(self) -> None:
        """Returns once everything has ended."""
        self.close()
        if self._serving is not None:
            await self._serving

    async def _opened(self) -> ASGIApp:
        async with self._lock:
            if self._app is None:
                streamable = await asyncio.to_thread(importlib.import_module, "marketplace.mcp.streamable")
                manager = streamable.manager_of(self._clerk, max_body_bytes=self._max_body_bytes)
                begun = asyncio.Event()
                self._serving = asyncio.create_task(self._serve(manager, begun))
                await begun.wait()
                self._app = manager.handle_request
            return self._app

    async def _serve(self, manager: Any, begun: asyncio.Event) -> None:
        # In a task of its own: what the manager opens must be closed where it was opened.
        async with manager.run():
            begun.set()
            await self._stop.wait()


def mount(app: Starlette, market: Market, *, max_body_bytes: int) -> Door:
    """Adds `/mcp` to a gateway's app, which is also what its tools call."""

    async def address_of(secret: str) -> str:
        return (await market.key_of(secret)).address

    deployment = market.deployment
    currency = Currency(symbol=deployment.token_symbol, decimals=deployment.token_decimals)
    clerk = HostedClerk(app, address_of, currency, market.clock)
    door = Door(clerk, max_body_bytes=max_body_bytes)
    app.router.routes.append(Route(PATH, endpoint=door, include_in_schema=False))
    return door

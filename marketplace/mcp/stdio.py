"""`watt mcp`: the server on standard input and output."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from marketplace.client.aio import AsyncWattline
from marketplace.mcp.limits import Words
from marketplace.mcp.own import Keep, OwnClerk
from marketplace.mcp.server import WattServer


def serve(open_client: Callable[[], Awaitable[AsyncWattline]], words: Words, keep: Keep) -> None:
    """Serves one host until it closes its end."""
    anyio.run(_serve, OwnClerk(open_client, words, keep))


async def _serve(clerk: OwnClerk) -> None:
    try:
        await WattServer(clerk).run_stdio_async()
    finally:
        with anyio.CancelScope(shield=True):
            await clerk.aclose()

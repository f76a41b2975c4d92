"""A host with the real MCP client, over a market in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client._memory import InMemoryTransport
from mcp_types import CallToolResult, ElicitResult

from marketplace.client.aio import AsyncWattline
from marketplace.client.payer import Payer
from marketplace.mcp.limits import Words
from marketplace.mcp.own import OwnClerk
from marketplace.mcp.server import WattServer
from tests.client.conftest import BUYER
from tests.client.fake_market import FakeMarket
from tests.client.fakes import Clock, FakeNode

# The newest revision asks by answering, older ones ask in the middle of a call; "stream" is the newest framed
# as on stdin and stdout.
MODES = ("auto", "legacy", "stream")
HI = {"model": "tiny-chat", "prompt": "hi", "max_tokens": 16}


class HeldMarket(FakeMarket):
    """Streams stop after their first chunk until somebody cancels the job."""

    def __init__(self) -> None:
        super().__init__([FakeNode(1)], Clock())
        self.chain.accounts[BUYER.address] = 5_000_000
        self.begun, self.go_on = anyio.Event(), anyio.Event()
        self.cancelled: list[str] = []

    def route(self, method: str, path: str, body: dict[str, Any], request: httpx2.Request) -> Any:
        if path.endswith("/cancel"):
            self.cancelled.append(path.split("/")[3])
            self.go_on.set()
            return {}
        return super().route(method, path, body, request)

    async def stream(self, node: FakeNode, bundle: Any) -> AsyncIterator[bytes]:
        pieces = super().stream(node, bundle)
        yield await anext(pieces)
        self.begun.set()
        await self.go_on.wait()
        async for piece in pieces:
            yield piece


class Host:
    """One host: its client, what it was asked, and how it answers."""

    def __init__(self, client: Client, asked: list[str], kept: list[Any]) -> None:
        self.client, self.asked, self.kept = client, asked, kept
        self.progress: list[tuple[float, str | None]] = []

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Structured content of a call that went well."""
        result = await self.raw(tool, **arguments)
        assert not result.is_error, result.content
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    async def refused(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Structured content of a call that failed."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, result.content
        assert isinstance(result.structured_content, dict)
        assert {"code", "message", "hint", "charged"} <= set(result.structured_content)
        return result.structured_content

    async def raw(self, tool: str, **arguments: Any) -> CallToolResult:
        async def heard(step: float, total: float | None, message: str | None) -> None:
            assert total == 3
            self.progress.append((step, message))

        return await self.client.call_tool(tool, arguments, progress_callback=heard)


@asynccontextmanager
async def host(
    market: FakeMarket,
    words: Words | None = None,
    *,
    mode: str = "auto",
    answer: ElicitResult | None = None,
    payer: Payer | None = None,
) -> AsyncIterator[Host]:
    """A host at the server of `watt mcp`; without `answer` it cannot ask its user."""
    asked: list[str] = []
    kept: list[Any] = []

    async def opened() -> AsyncWattline:
        key = BUYER if payer is None else payer.signer
        return AsyncWattline(market.desk(key), buyer=BUYER if payer is None else None, payer=payer)

    async def elicited(_context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        assert answer is not None
        return answer

    clerk = OwnClerk(opened, words or Words(per_job="0.02"), kept.extend)
    callback = None if answer is None else elicited
    server = WattServer(clerk)
    place: WattServer | InMemoryTransport = server if mode != "stream" else InMemoryTransport(server)
    spoken = "legacy" if mode == "legacy" else "auto"
    async with Client(place, mode=spoken, elicitation_callback=callback) as client:
        assert (client.protocol_version == "2026-07-28") is (mode != "legacy")
        yield Host(client, asked, kept)
    await clerk.aclose()

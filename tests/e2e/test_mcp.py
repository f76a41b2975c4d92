"""The MCP client at `watt mcp`, as a host starts it, and at a gateway's `/mcp`: a market that runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from tests.e2e.checker import check
from tests.e2e.market import MarketUnderTest

QUESTION = "What is the capital of France? Answer in one sentence."


class Agent:
    """Calls tools, and remembers the steps it was told of."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.steps: list[str | None] = []

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments, progress_callback=self._heard)
        assert not result.is_error, result.content
        assert isinstance(result.structured_content, dict)
        return result.structured_content

    async def _heard(self, _step: float, _total: float | None, message: str | None) -> None:
        self.steps.append(message)


async def test_agent_finds_prices_buys_and_verifies(market: MarketUnderTest) -> None:
    server = StdioServerParameters(
        command=str(Path(sys.executable).with_name("watt")),
        args=["mcp", "--budget", "1", "--data-dir", str(market.data_dir)],
    )
    async with Client(server) as client:
        agent = Agent(client)
        found = (await agent.call("search_models", task="chat"))["models"]
        assert CHAT_MODEL in {row["model"] for row in found}
        offers = (await agent.call("quote", model=CHAT_MODEL, prompt=QUESTION, max_tokens=16))["offers"]
        ran = await agent.call("run", offer=offers[0]["offer"])
        assert "Paris" in ran["text"]
        assert float(ran["paid"]) <= float(offers[0]["ceiling"])
        assert ran["verified"]
        assert agent.steps == ["ordered", "running", "delivered"]
        assert (await agent.call("verify_receipt", id=ran["receipt"]))["verified"]
        assert (await agent.call("job", id=ran["job"]))["charged"]
        assert (await agent.call("budget"))["spent"] == ran["paid"]


async def test_gateway_serves_the_same_tools_to_a_bearer_key(market: MarketUnderTest) -> None:
    headers = {"authorization": f"Bearer {market.market.api_key}"}
    url = f"{market.market.gateway_url}/mcp"
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        agent = Agent(client)
        ran = await agent.call("run", model=CHAT_MODEL, prompt=QUESTION, max_tokens=16)
        assert ("Paris" in ran["text"], ran["verified"]) == (True, True)
        vectors = (await agent.call("run", model=EMBED_MODEL, input=["a cat"]))["vectors"]
        assert len(vectors[0]) == 384
        assert float((await agent.call("budget"))["left"]) > 0
    assert check(market.evidence()) == []

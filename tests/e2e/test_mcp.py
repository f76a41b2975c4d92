"""The MCP client at `watt mcp`, as a host starts it, against a running market."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

from marketplace.local.commands import CHAT_MODEL
from tests.e2e.market import MarketUnderTest

QUESTION = "What is the capital of France? Answer in one sentence."


async def test_agent_finds_prices_buys_and_verifies(market: MarketUnderTest) -> None:
    server = StdioServerParameters(
        command=str(Path(sys.executable).with_name("watt")),
        args=["mcp", "--budget", "1", "--data-dir", str(market.data_dir)],
    )
    steps: list[str | None] = []

    async def heard(_step: float, _total: float | None, message: str | None) -> None:
        steps.append(message)

    async with Client(server) as agent:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            result = await agent.call_tool(tool, arguments, progress_callback=heard)
            assert not result.is_error, result.content
            assert isinstance(result.structured_content, dict)
            return result.structured_content

        assert CHAT_MODEL in {row["model"] for row in (await call("search_models", task="chat"))["models"]}
        offers = (await call("quote", model=CHAT_MODEL, prompt=QUESTION, max_tokens=16))["offers"]
        ran = await call("run", offer=offers[0]["offer"])
        assert "Paris" in ran["text"]
        assert float(ran["paid"]) <= float(offers[0]["ceiling"])
        assert ran["verified"]
        assert steps == ["ordered", "running", "delivered"]
        assert (await call("verify_receipt", id=ran["receipt"]))["verified"]
        assert (await call("job", id=ran["job"]))["charged"]
        assert (await call("budget"))["spent"] == ran["paid"]
    # Beside what the gateway says: the receipt it keeps is the one that was paid.
    assert json.dumps(market.get(f"/v1/receipts/{ran['receipt']}"))

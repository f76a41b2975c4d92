"""The real pydantic-ai against the proxy: its `cost_limit` holds, as it does not for other servers."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic_ai import Agent, UsageLimitExceeded, UsageLimits
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse

from marketplace.client import verify_receipt
from marketplace.client.pydantic_ai import WattlineModel, WattlineProvider
from marketplace.client.verify import failures
from tests.client.fake_market import FakeMarket
from tests.proxy.conftest import URL, Served


@pytest.fixture
def agent(served: Served) -> Agent[None, str]:
    provider = WattlineProvider(f"{URL}/v1", http_client=served.http())
    return Agent(WattlineModel("tiny-chat", provider=provider))


def proof(messages: list[Any]) -> dict[str, Any]:
    (response,) = [message for message in messages if isinstance(message, ModelResponse)]
    assert response.provider_details is not None
    return dict(response.provider_details)


async def test_run_knows_its_cost_to_the_atom_and_has_the_receipt(agent: Agent[None, str]) -> None:
    result = await agent.run("hi")
    assert result.output == "Hello, world"
    assert result.usage.cost == Decimal("0.000012")
    details = proof(result.all_messages())
    assert details["job_id"] == "job_1"
    assert failures(verify_receipt(details["receipt"])) == []


async def test_stream_knows_the_same(agent: Agent[None, str]) -> None:
    async with agent.run_stream("hi") as result:
        assert "".join([text async for text in result.stream_text(delta=True)]) == "Hello, world"
        assert result.usage.cost == Decimal("0.000012")
        assert failures(verify_receipt(proof(result.all_messages())["receipt"])) == []


async def test_cost_limit_ends_a_run_that_costs_more(agent: Agent[None, str]) -> None:
    assert await agent.run("hi", usage_limits=UsageLimits(cost_limit=Decimal("0.000012")))
    with pytest.raises(UsageLimitExceeded, match="cost_limit"):
        await agent.run("hi", usage_limits=UsageLimits(cost_limit=Decimal("0.000011")))


async def test_cost_limit_ends_a_stream_that_costs_more(agent: Agent[None, str]) -> None:
    with pytest.raises(UsageLimitExceeded, match="cost_limit"):
        async with agent.run_stream("hi", usage_limits=UsageLimits(cost_limit=Decimal("0.000011"))) as result:
            await result.get_output()


async def test_costs_of_runs_with_one_usage_add_up(agent: Agent[None, str]) -> None:
    first = await agent.run("hi")
    second = await agent.run("ho", message_history=first.all_messages(), usage=first.usage)
    assert second.usage.cost == Decimal("0.000024")


async def test_spent_budget_reaches_the_agent_as_402(
    agent: Agent[None, str], served: Served, market: FakeMarket
) -> None:
    await served.proxy.client.set_budget("0.000001")
    with pytest.raises(ModelHTTPError) as caught:
        await agent.run("hi")
    assert caught.value.status_code == 402
    assert market.orders == []

"""Above the user's limits the user is asked; nothing is ever spent silently."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from mcp_types import ElicitResult

from marketplace.client.payer import Payer
from marketplace.client.problems import GatewayProblem, GatewayTrouble
from marketplace.mcp.limits import Limits, Words
from marketplace.mcp.shelf import Shelf
from marketplace.mcp.shop import Currency, wish_of
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer
from tests.client.conftest import BUYER
from tests.client.fake_market import FakeMarket
from tests.client.fakes import MODEL_ID, NO_KEY
from tests.mcp.host import HI, MODES, host

YES = ElicitResult(action="accept", content={"allow": True})
NO = [
    ElicitResult(action="accept", content={"allow": False}),
    ElicitResult(action="decline"),
    ElicitResult(action="cancel"),
]
TUSD = Currency(symbol="TUSD", decimals=6)
LOW = Words(per_job="0.00001")


@pytest.mark.parametrize("mode", MODES)
async def test_job_above_the_cap_is_put_to_the_user_and_bought_when_allowed(
    market: FakeMarket, mode: str
) -> None:
    async with host(market, mode=mode, answer=YES) as agent:
        ran = await agent.call("run", **HI, max_cost="3.00")
        assert ran["text"] == "Hello, world"
        assert agent.asked == ["This job may cost 3.00 TUSD; your cap is 0.02. Allow once?"]
        await agent.call("run", **HI, max_cost="3.00")
        assert len(agent.asked) == 2, "allowed once is allowed once"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("answer", NO)
async def test_job_the_user_does_not_allow_is_never_ordered(
    market: FakeMarket, mode: str, answer: ElicitResult
) -> None:
    async with host(market, LOW, mode=mode, answer=answer) as agent:
        refused = await agent.refused("run", **HI)
        assert len(agent.asked) == 1
    assert (refused["code"], refused["charged"]) == ("price_above_max", False)
    assert "did not allow" in refused["message"]
    assert market.orders == []


@pytest.mark.parametrize("mode", MODES)
async def test_answer_that_is_none_spends_nothing(market: FakeMarket, mode: str) -> None:
    async with host(market, LOW, mode=mode, answer=ElicitResult(action="accept", content={})) as agent:
        assert (await agent.raw("run", **HI)).is_error
    assert market.orders == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("more", [{"max_cost": "3.00"}, {}])
async def test_client_that_cannot_ask_is_told_no(market: FakeMarket, mode: str, more: dict[str, Any]) -> None:
    words = Words(per_job="0.02") if more else LOW
    async with host(market, words, mode=mode) as agent:
        refused = await agent.refused("run", **HI, **more)
    assert (refused["code"], refused["charged"]) == ("price_above_max", False)
    assert "cannot ask" in refused["message"]
    assert "--per-job" in refused["hint"]
    assert market.orders == []


@pytest.mark.parametrize("mode", MODES)
async def test_offer_above_the_cap_is_asked_for_too_but_not_once_it_is_bought(
    market: FakeMarket, mode: str
) -> None:
    async with host(market, LOW, mode=mode, answer=YES) as agent:
        offer = (await agent.call("quote", **HI))["offers"][0]
        await agent.call("run", offer=offer["offer"])
        await agent.call("run", offer=offer["offer"])
        assert agent.asked == [f"This job may cost {offer['ceiling']} TUSD; your cap is 0.00001. Allow once?"]


async def test_granted_key_sees_and_buys_only_the_models_of_its_grant(market: FakeMarket) -> None:
    agent_key = Signer(b"\x12" * 32)
    market.names |= {"bge"}
    market.chain.accounts[BUYER.address] = 5_000_000
    market.chain.keys[BUYER.address, agent_key.address] = dataclasses.replace(
        NO_KEY, per_session_atoms=10**6, per_day_atoms=10**6, total_atoms=10**6, expires_at=1 << 40, nonce=1
    )
    payer = Payer(buyer=BUYER.address, signer=agent_key, models=("tiny-*",))
    async with host(market, payer=payer) as agent:
        assert [row["model"] for row in (await agent.call("search_models"))["models"]] == ["tiny-chat"]
        assert (await agent.call("budget"))["models"] == "tiny-*"
        for tool in ("quote", "run"):
            refused = await agent.refused(tool, model="bge", prompt="hi")
            assert (refused["code"], "tiny-*" in refused["message"]) == ("unknown_model", True)
        assert market.orders == []
        # An offer is for one exact model, by whatever name the grant allows it.
        offer = (await agent.call("quote", **HI))["offers"][0]
        assert (await agent.call("run", offer=offer["offer"]))["model_id"] == to_hex(MODEL_ID)
    async with host(market, Words(models="bge*"), payer=payer) as agent:
        assert (await agent.call("search_models"))["models"] == []
        assert (await agent.refused("run", **HI))["code"] == "unknown_model"


async def test_job_above_what_is_left_of_the_budget_is_asked_for(market: FakeMarket) -> None:
    async with host(market, Words(budget="0.00006"), answer=YES) as agent:
        while not agent.asked:
            await agent.call("run", **HI)
        assert (await agent.call("budget"))["left"] < "0.00006"
        assert agent.asked[0].startswith("This job may cost 0.0000")


async def test_no_node_above_the_cap_takes_over_unasked(market: FakeMarket) -> None:
    market.nodes[1].behaviour = "fail"
    async with host(market) as agent:
        quoted = await agent.call("quote", **HI)
    cheap, dear = (offer["ceiling"] for offer in quoted["offers"])
    assert cheap < dear
    async with host(market, Words(per_job=cheap)) as agent:
        assert (await agent.refused("run", **HI))["code"] == "node_failed"
    assert [order.max_amount_atoms for order in market.orders] == [TUSD.atoms(cheap)]


@pytest.mark.parametrize("model", ["tiny-chat", to_hex(MODEL_ID)])
async def test_only_models_of_the_pattern_are_seen_quoted_and_run(market: FakeMarket, model: str) -> None:
    async with host(market, Words(models="big-*")) as agent:
        assert (await agent.call("search_models"))["models"] == []
        for tool in ("quote", "run"):
            refused = await agent.refused(tool, model=model, prompt="hi")
            assert (refused["code"], refused["charged"]) == ("unknown_model", False)
    async with host(market, Words(models="tiny-*")) as agent:
        assert len((await agent.call("search_models"))["models"]) == 1
        assert (await agent.call("run", model=model, prompt="hi"))["verified"]
        assert (await agent.call("budget"))["models"] == "tiny-*"
    assert len(market.orders) == 1


def test_money_of_running_jobs_is_held_until_they_end() -> None:
    limits = Limits(Words(per_job="1", budget="1.50"), TUSD)
    with limits.holding(1_000_000, allowed=False) as first:
        assert limits.cap_atoms == limits.left_atoms == 500_000
        too_much = limits.holding(600_000, allowed=False)
        with pytest.raises(BadRequest, match=r"jobs that run now leave 0\.50"), too_much:
            pytest.fail("it was let in")
        with limits.holding(600_000, allowed=True) as second:
            assert limits.left_atoms == 0
            second.cost_atoms = 100
        first.cost_atoms = 200
    assert (limits.spent_atoms, limits.left_atoms) == (300, 1_499_700)


@pytest.mark.parametrize(
    ("error", "spent"),
    [
        (BadRequest(ErrorCode.NO_NODE), 0),
        (GatewayProblem(ErrorCode.NODE_FAILED), 0),
        (GatewayProblem(ErrorCode.NODE_FAILED, charged=True), 10),
        (GatewayTrouble("silent"), 10),
        (RuntimeError("a defect"), 10),
    ],
)
def test_what_is_not_known_to_be_free_counts_as_spent(error: Exception, spent: int) -> None:
    limits = Limits(Words(budget="1"), TUSD)
    with pytest.raises(type(error)), limits.holding(10, allowed=False):
        raise error
    assert (limits.spent_atoms, limits.left_atoms) == (spent, 1_000_000 - spent)


def test_oldest_offers_leave_a_full_shelf(market: FakeMarket) -> None:
    from marketplace.client.quotes import Quote

    shelf, now = Shelf(), market.clock.ms
    body = {
        "model": "tiny-chat",
        "task": "chat",
        "messages": [{"role": "user", "content": "x"}],
        "max_tokens": 1,
    }
    quote = Quote.from_json(market.quotes(body)["quotes"][0])
    wish = wish_of(model="tiny-chat", prompt="x" * 3_000_000)
    names = [shelf.put("me", wish, [quote])[0] for _ in range(6)]
    with pytest.raises(BadRequest) as caught:
        shelf.take("me", names[0], now)
    assert caught.value.code is ErrorCode.OFFER_UNKNOWN
    assert shelf.take("me", names[-1], now).wish is wish
    with pytest.raises(BadRequest, match="is kept for you"):
        shelf.take("somebody else", names[-1], now)

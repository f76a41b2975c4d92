"""Six tools over a buyer's own key, as a host sees them."""

from __future__ import annotations

import dataclasses
from functools import partial

import anyio
import pytest

from marketplace.client.payer import Payer
from marketplace.mcp.limits import Words
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer
from tests.client.conftest import BUYER
from tests.client.fake_market import FakeMarket
from tests.client.fakes import MODEL_ID, NO_KEY, START_MS
from tests.mcp.host import HI, MODES, HeldMarket, host

TOOLS = ["budget", "job", "quote", "run", "search_models", "verify_receipt"]


async def test_tools_have_schemas_on_both_sides_and_only_run_spends(market: FakeMarket) -> None:
    async with host(market) as agent:
        tools = (await agent.client.list_tools()).tools
    assert sorted(tool.name for tool in tools) == TOOLS
    for tool in tools:
        assert tool.description
        assert tool.output_schema is not None
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is (tool.name != "run")
    (run,) = (tool for tool in tools if tool.name == "run")
    # What only the server fills in is no argument.
    assert {"call", "plan", "permission"}.isdisjoint(run.input_schema["properties"])
    assert market.calls == []


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({}, 1),
        ({"query": "CHAT tiny"}, 1),
        ({"query": "llama"}, 0),
        ({"task": "chat"}, 1),
        ({"task": "embed"}, 0),
    ],
)
async def test_models_are_found_by_words_and_task(
    market: FakeMarket, arguments: dict[str, str], found: int
) -> None:
    async with host(market) as agent:
        models = (await agent.call("search_models", **arguments))["models"]
    assert [model["model"] for model in models] == ["tiny-chat"] * found


async def test_quotes_rank_offers_and_charge_nothing(market: FakeMarket) -> None:
    async with host(market) as agent:
        quoted = await agent.call("quote", **HI)
    first, second = quoted["offers"]
    assert (first["node_id"], first["why"], first["expires_in_seconds"]) == (1, "cheapest", 600)
    assert float(first["ceiling"]) < float(second["ceiling"])
    assert first["offer"] != second["offer"]
    assert market.orders == []


@pytest.mark.parametrize("mode", MODES)
async def test_offer_is_bought_at_its_node_and_only_once(market: FakeMarket, mode: str) -> None:
    async with host(market, mode=mode) as agent:
        _, dearer = (await agent.call("quote", **HI))["offers"]
        ran = await agent.call("run", offer=dearer["offer"])
        assert (ran["text"], ran["finish"], ran["node_id"]) == ("Hello, world", "stop", 2)
        assert (ran["paid"], ran["currency"], ran["verified"]) == ("0.000022", "TUSD", True)
        assert (ran["model"], ran["model_id"]) == ("tiny-chat", to_hex(MODEL_ID))
        assert float(ran["paid"]) + float(ran["refunded"]) == pytest.approx(float(dearer["ceiling"]))
        again = await agent.call("run", offer=dearer["offer"])
    assert again == ran
    assert len(market.orders) == 1


async def test_two_calls_that_take_one_offer_at_once_buy_once(market: FakeMarket) -> None:
    answers = []
    async with host(market) as agent:
        offer = (await agent.call("quote", **HI))["offers"][0]["offer"]

        async def take() -> None:
            answers.append(await agent.call("run", offer=offer))

        async with anyio.create_task_group() as both:
            both.start_soon(take)
            both.start_soon(take)
    assert answers[0] == answers[1]
    assert len(market.orders) == 1


async def test_offer_whose_run_failed_may_be_taken_again(market: FakeMarket) -> None:
    market.nodes[1].behaviour = "problem node_busy"
    async with host(market) as agent:
        offer = (await agent.call("quote", **HI))["offers"][0]["offer"]
        refused = await agent.refused("run", offer=offer)
        assert (refused["code"], refused["charged"], refused["retryable"]) == ("node_busy", False, True)
        market.nodes[1].behaviour = "ok"
        assert (await agent.call("run", offer=offer))["text"] == "Hello, world"


@pytest.mark.parametrize("mode", MODES)
async def test_run_tells_its_steps(market: FakeMarket, mode: str) -> None:
    async with host(market, mode=mode) as agent:
        await agent.call("run", **HI)
        assert agent.progress == [(1, "ordered"), (2, "running"), (3, "delivered")]


async def test_second_node_takes_over_and_steps_never_go_back(market: FakeMarket) -> None:
    market.nodes[1].behaviour = "fail"
    async with host(market) as agent:
        ran = await agent.call("run", **HI)
        assert ran["node_id"] == 2
        assert [step for step, _ in agent.progress] == [1, 2, 3]


async def test_other_tasks_are_bought_too(market: FakeMarket) -> None:
    fields = {"input": ["I loved it"], "labels": ["bad", "good"]}
    async with host(market) as agent:
        embedded = await agent.call("run", model="tiny-chat", input=["a", "b"])
        assert (embedded["vectors"], embedded["text"]) == ([[1.0, 2.0], [1.0, 2.0]], None)
        classified = await agent.call("run", model="tiny-chat", task="classify", fields=fields)
        assert classified["answer"]["results"][0]["label"] == "good"
        talked = await agent.call("run", model="tiny-chat", messages=[{"role": "user", "content": "hi"}])
        assert talked["text"] == "Hello, world"
        for words in ({"input": "a"}, {"task": "classify", "fields": fields}):
            assert len((await agent.call("quote", model="tiny-chat", **words))["offers"]) == 2
    assert len(market.orders) == 3


async def test_job_and_receipt_of_a_run_can_be_asked_for(market: FakeMarket) -> None:
    async with host(market) as agent:
        ran = await agent.call("run", **HI)
        job = await agent.call("job", id=ran["job"])
        assert (job["phase"], job["receipt"]) == ("delivered", ran["receipt"])
        checked = await agent.call("verify_receipt", id=ran["receipt"])
        assert checked["verified"] is True
        outcomes = {check["name"]: check["ok"] for check in checked["checks"]}
        # The chain was asked too; only what is settled later is open.
        assert (outcomes["receipt signature"], outcomes["node"], outcomes["settlement"]) == (True, True, None)


async def test_forged_bundle_fails_its_checks(market: FakeMarket) -> None:
    async with host(market) as agent:
        ran = await agent.call("run", **HI)
        bundle = market.bundles[ran["receipt"]].to_json()
        assert (await agent.call("verify_receipt", bundle=bundle))["verified"] is True
        forged = bundle | {"chunks": bundle["chunks"][:1]}
        checked = await agent.call("verify_receipt", bundle=forged)
    assert checked["verified"] is False
    assert "response hash" in {check["name"] for check in checked["checks"] if check["ok"] is False}


async def test_budget_of_an_own_account_goes_down_by_what_was_paid(market: FakeMarket) -> None:
    async with host(market, Words(per_job="0.02", budget="1")) as agent:
        before = await agent.call("budget")
        assert (before["left"], before["per_job"], before["spent"]) == ("1.00", "0.02", "0.00")
        assert before["expires_in_seconds"] is None
        ran = await agent.call("run", **HI)
        after = await agent.call("budget")
    assert (after["spent"], after["left"]) == (ran["paid"], "0.999988")
    assert float(after["in_sessions"]) > 0


async def test_budget_of_a_granted_key_is_what_its_caps_leave(market: FakeMarket) -> None:
    agent_key = Signer(b"\x12" * 32)
    state = dataclasses.replace(
        NO_KEY,
        per_session_atoms=500_000,
        per_day_atoms=2_000_000,
        total_atoms=900_000,
        expires_at=START_MS // 1000 + 3600,
    )
    market.chain.keys[BUYER.address, agent_key.address] = state
    async with host(market, Words(), payer=Payer(buyer=BUYER.address, signer=agent_key)) as agent:
        told = await agent.call("budget")
    assert (told["left"], told["per_session"], told["per_job"]) == ("0.90", "0.50", None)
    assert told["expires_in_seconds"] == 3600


@pytest.mark.parametrize("mode", MODES)
async def test_cancelled_call_cancels_its_job_and_its_offer_is_not_ordered_again(mode: str) -> None:
    market = HeldMarket()
    async with host(market, mode=mode) as agent:
        offer = (await agent.call("quote", **HI))["offers"][0]["offer"]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(agent.raw, "run", offer=offer))
            await market.begun.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(5):
            await market.go_on.wait()
        assert (await agent.refused("run", offer=offer))["code"] == "order_replayed"
    assert market.cancelled == ["job_1"]
    assert len(market.orders) == 1


async def test_call_that_never_came_to_an_order_costs_nothing(market: FakeMarket) -> None:
    market.opens_on_chain = False
    async with host(market, Words(budget="1")) as agent:
        refused = await agent.refused("run", **HI)
        assert (refused["code"], refused["charged"]) == ("chain_unavailable", False)
        assert (await agent.call("budget"))["spent"] == "0.00"
    assert market.orders == []


async def test_market_that_is_down_is_an_error_in_words_and_its_tools_are_listed(market: FakeMarket) -> None:
    market.down = True
    async with host(market) as agent:
        assert len((await agent.client.list_tools()).tools) == len(TOOLS)
        refused = await agent.refused("run", **HI)
        assert (refused["code"], refused["charged"]) == ("not_ready", False)
        market.down = False
        assert (await agent.call("run", **HI))["text"] == "Hello, world"


async def test_outcome_that_nobody_knows_is_told_as_such_and_counts_as_spent(market: FakeMarket) -> None:
    market.nodes[1].behaviour = "silent"
    async with host(market, Words(budget="1")) as agent:
        ceiling = (await agent.call("quote", **HI))["offers"][0]
        refused = await agent.refused("run", offer=ceiling["offer"])
        assert (refused["charged"], refused["job_id"]) == (None, "job_1")
        assert (await agent.call("budget"))["spent"] == ceiling["ceiling"]
        market.nodes[1].behaviour = "ok"
        again = await agent.refused("run", offer=ceiling["offer"])
        assert (again["code"], again["job_id"]) == ("order_replayed", "job_1")
        assert "job('job_1')" in again["hint"]
    assert len(market.orders) == 1


async def test_receipt_that_does_not_hold_is_kept_as_evidence(market: FakeMarket) -> None:
    market.nodes[1].behaviour = "overcharge"
    async with host(market) as agent:
        assert (await agent.call("run", **HI))["node_id"] == 2
        market.nodes[2].behaviour = "overcharge"
        refused = await agent.refused("run", **HI)
        assert (refused["code"], refused["charged"]) == ("receipt_invalid", False)
        assert "faults" not in refused
        assert {bundle["node"]["node_id"] for bundle in agent.kept} == {1, 2}


BAD_CALLS = [
    ("run", {"model": "nobody", "prompt": "hi"}, "unknown_model"),
    ("run", {"prompt": "hi"}, "invalid_request"),
    ("run", {"model": "tiny-chat"}, "invalid_request"),
    ("run", {"model": "tiny-chat", "prompt": "hi", "input": "hi"}, "invalid_request"),
    ("run", {"model": "tiny-chat", "prompt": "hi", "max_tokens": 0}, "invalid_request"),
    ("run", {"model": "tiny-chat", "messages": [{"role": "tool", "content": "x"}]}, "invalid_request"),
    ("run", {"model": "tiny-chat", "task": "sing", "fields": {}}, "invalid_request"),
    ("run", {"model": "tiny-chat", "prompt": "hi", "max_cost": "a lot"}, "invalid_request"),
    ("run", {"model": "tiny-chat", "prompt": "hi", "max_cost": "0.000001"}, "price_above_max"),
    ("run", {"offer": "off_0"}, "offer_unknown"),
    ("run", {"offer": "off_0", "prompt": "hi"}, "invalid_request"),
    ("quote", {"model": "nobody", "prompt": "hi"}, "unknown_model"),
    ("quote", {"prompt": "hi"}, "invalid_request"),
    ("job", {"id": "job_none"}, "unknown_job"),
    ("job", {"id": "../keys"}, "invalid_request"),
    ("verify_receipt", {"id": "rcpt_none"}, "unknown_receipt"),
    ("verify_receipt", {}, "invalid_request"),
]


@pytest.mark.parametrize(("tool", "arguments", "code"), BAD_CALLS)
async def test_bad_call_is_refused_with_a_remedy_and_orders_nothing(
    market: FakeMarket, tool: str, arguments: dict[str, object], code: str
) -> None:
    async with host(market) as agent:
        refused = await agent.refused(tool, **arguments)
    assert (refused["code"], refused["charged"]) == (code, False)
    assert refused["message"]
    assert refused["hint"]
    assert market.orders == []


async def test_offer_that_has_ended_and_one_that_is_too_dear_are_refused(market: FakeMarket) -> None:
    async with host(market) as agent:
        offer = (await agent.call("quote", **HI))["offers"][0]["offer"]
        assert (await agent.refused("run", offer=offer, max_cost="0.000001"))["code"] == "price_above_max"
        market.clock.ms += 600_000
        assert (await agent.refused("run", offer=offer))["code"] == "offer_expired"
    assert market.orders == []


async def test_no_node_says_why_none_can(market: FakeMarket) -> None:
    market.nodes.clear()
    async with host(market) as agent:
        assert (await agent.refused("run", **HI))["code"] == "no_node"

"""The stock OpenAI client against the proxy, told nothing but base_url and any key."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI, OpenAI
from starlette.testclient import TestClient

from marketplace.client import verify_receipt
from marketplace.client.aio import AsyncWattline
from marketplace.client.verify import failures
from marketplace.proxy.app import create_app
from marketplace.proxy.calls import Bounds
from tests.client.fake_market import FakeMarket
from tests.proxy.conftest import HI, URL, Served, serve


async def test_whole_answer_has_cost_and_a_receipt_that_verifies(
    openai: AsyncOpenAI, served: Served, market: FakeMarket
) -> None:
    answer: Any = await openai.chat.completions.create(model="tiny-chat", messages=HI, max_tokens=16)
    assert answer.choices[0].message.content == "Hello, world"
    assert (answer.choices[0].finish_reason, answer.object) == ("stop", "chat.completion")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.cost) == (5, 2, 0.000012)
    details = answer.usage.cost_details
    assert (details["atoms"], details["amount"], details["currency"]) == ("12", "0.000012", "TUSD")
    assert int(details["atoms"]) + int(details["refunded_atoms"]) == int(details["ceiling_atoms"])
    assert failures(verify_receipt(answer.receipt)) == []
    assert answer.job_id == "job_1"
    assert [voucher.amount_atoms for voucher in market.vouchers] == [12]
    assert [done.bundle.receipt_id for done in served.paid] == [answer.receipt["id"]]


async def test_stream_ends_with_usage_unasked_and_a_receipt_that_verifies(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(model="tiny-chat", messages=HI, stream=True)
    chunks: list[Any] = [chunk async for chunk in stream]
    assert [c.choices[0].delta.content for c in chunks if c.choices] == ["", "Hello", ", world", None]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.cost_details["atoms"] == "12"
    assert failures(verify_receipt(chunks[-1].receipt)) == []
    assert {c.id for c in chunks} == {"chatcmpl-1"}


async def test_logprobs_come_whole_and_streamed(openai: AsyncOpenAI) -> None:
    asked: Any = {"model": "tiny-chat", "messages": HI, "logprobs": True, "top_logprobs": 1}
    whole = (await openai.chat.completions.create(**asked)).choices[0].logprobs
    assert whole is not None
    rows = whole.content or []
    assert [(row.token, row.logprob, len(row.top_logprobs)) for row in rows] == [(" é", -2.5, 1)] * 2
    stream = await openai.chat.completions.create(**asked, stream=True)
    told = [c.choices[0].logprobs async for c in stream if c.choices]
    assert [row for one in told if one for row in one.content or []] == rows


async def test_embeddings_come_as_the_client_asks_for_them(openai: AsyncOpenAI) -> None:
    found: Any = await openai.embeddings.create(model="tiny-chat", input=["a", "b"])
    assert [row.embedding for row in found.data] == [[1.0, 2.0]] * 2
    assert failures(verify_receipt(found.receipt)) == []
    plain = await openai.embeddings.create(model="tiny-chat", input="a", encoding_format="float")
    assert plain.data[0].embedding == [1.0, 2.0]


def test_blocking_client_gets_the_same(market: FakeMarket, watt: AsyncWattline) -> None:
    with TestClient(create_app(serve(watt).proxy), base_url=URL) as http:
        openai = OpenAI(base_url=f"{URL}/v1", api_key="any", http_client=http, max_retries=0)
        answer: Any = openai.chat.completions.create(model="tiny-chat", messages=HI)
        assert answer.choices[0].message.content == "Hello, world"
        assert failures(verify_receipt(answer.receipt)) == []
        stream = openai.chat.completions.create(model="tiny-chat", messages=HI, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "Hello, world"
        assert openai.embeddings.create(model="tiny-chat", input="a").data[0].embedding == [1.0, 2.0]
        assert [model.id for model in openai.models.list()] == ["tiny-chat"]
    assert len(market.orders) == 3


@pytest.mark.parametrize(
    ("change", "status", "code", "word"),
    [
        ({"model": "gpt-9"}, 404, "unknown_model", "GET /v1/models"),
        ({"n": 2}, 422, "unsupported", "n must be 1"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 422, "unsupported", "tools"),
        ({"max_tokens": 0}, 422, "invalid_request", "max_tokens"),
        ({"messages": []}, 422, "invalid_request", "messages"),
        ({"extra_body": {"max_cost": "0.000001"}}, 402, "price_above_max", "asks"),
        ({"extra_body": {"max_cost": "much"}}, 422, "invalid_request", "decimal"),
        ({"extra_body": {"node": 9}}, 503, "no_node", "No node"),
    ],
)
async def test_errors_reach_the_client_with_code_charge_and_remedy(
    openai: AsyncOpenAI, market: FakeMarket, change: dict[str, Any], status: int, code: str, word: str
) -> None:
    call: Any = {"model": "tiny-chat", "messages": HI} | change
    with pytest.raises(APIStatusError) as caught:
        await openai.chat.completions.create(**call)
    error = caught.value
    assert (error.status_code, error.code) == (status, code)
    assert isinstance(error.body, dict)
    assert error.body["charged"] is False
    assert error.body["hint"]
    assert word in error.body["message"]
    assert (error.response.headers.get("x-should-retry") == "false") == (status < 500)
    assert error.response.headers["content-type"] == "application/problem+json"
    assert market.vouchers == []


async def test_stream_that_cannot_begin_is_an_error_and_no_stream(
    openai: AsyncOpenAI, market: FakeMarket
) -> None:
    market.nodes[1].behaviour = market.nodes[2].behaviour = "problem node_busy"
    with pytest.raises(APIStatusError) as caught:
        await openai.chat.completions.create(model="tiny-chat", messages=HI, stream=True)
    assert (caught.value.status_code, caught.value.code) == (503, "node_busy")


async def test_stream_that_breaks_ends_with_the_problem(http: httpx2.AsyncClient, market: FakeMarket) -> None:
    market.nodes[1].behaviour = "refuse"
    body = {"model": "tiny-chat", "messages": HI, "stream": True}
    answer = await http.post("/v1/chat/completions", json=body)
    *_, problem, done = [line for line in answer.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    told = json.loads(problem.removeprefix("data: "))
    assert (told["code"], told["charged"], told["error"]["code"]) == ("node_busy", False, "node_busy")


async def test_budget_that_is_used_up_is_402_with_the_remedy(served: Served, market: FakeMarket) -> None:
    await served.proxy.client.set_budget("0.000060", name="proxy")
    http = served.http()
    body = {"model": "tiny-chat", "messages": HI, "max_tokens": 16}
    lefts = []
    for _ in range(3):
        answer = await http.post("/v1/chat/completions", json=body)
        lefts.append(answer.headers["x-watt-budget-left"])
    assert lefts == ["0.000048", "0.000036", "0.000024"]
    refused = await http.post("/v1/chat/completions", json=body)
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["charged"]) == (402, "budget_exceeded", False)
    assert "raise the budget" in problem["hint"]
    assert refused.headers["x-should-retry"] == "false"
    assert len(market.orders) == 3
    told = (await http.get("/v1/budget")).json()
    assert (told["limit"], told["spent_atoms"], told["left"]) == ("0.00006", "36", "0.000024")
    lasts = told["forecast"]
    assert (lasts["purchases_last_day"], lasts["spent_last_hour_atoms"], lasts["ends_by"]) == (
        3,
        "36",
        "money",
    )
    assert lasts["empty_in_seconds"] == 24 * lasts["based_on_seconds"] // 36
    market.clock.ms += 24 * 3_600_000
    later = (await http.get("/v1/budget")).json()
    assert (later["spent_atoms"], later["forecast"]["purchases_last_day"]) == ("36", 0)
    assert later["forecast"]["empty_at"] is None


async def test_bounds_of_the_proxy_hold_for_calls_that_name_none_or_wider(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    http = serve(watt, Bounds(max_cost="0.000001", node=2)).http()
    body = {"model": "tiny-chat", "messages": HI}
    for wish in ({}, {"max_cost": "1"}):
        refused = await http.post("/v1/chat/completions", json=body | wish)
        assert refused.json()["code"] == "price_above_max"
    http = serve(watt, Bounds(max_cost="0.01", node=2)).http()
    await http.post("/v1/chat/completions", json=body)
    assert [done.node_id for done in market.bundles.values()] == [2]
    tight = await http.post("/v1/chat/completions", json=body | {"max_cost": 0.000001})
    assert tight.json()["code"] == "price_above_max"


async def test_receipts_that_do_not_hold_are_handed_over(served: Served, market: FakeMarket) -> None:
    market.nodes[1].behaviour = "overcharge"
    answer: Any = await served.openai().chat.completions.create(model="tiny-chat", messages=HI)
    assert failures(verify_receipt(answer.receipt)) == []
    (fault,) = served.faults
    assert failures(verify_receipt(fault)) != []
    market.nodes[2].behaviour = "overcharge"
    with pytest.raises(APIStatusError):
        await served.openai().chat.completions.create(model="tiny-chat", messages=HI, extra_body={"node": 2})
    assert len(served.faults) == 2

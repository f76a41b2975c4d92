"""Responses and completions of the stock OpenAI client, bought by the proxy with the buyer's own key."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from openai import APIStatusError, AsyncOpenAI

from marketplace.client.aio import AsyncWattline
from marketplace.client.verify import failures, verify_receipt
from marketplace.protocol.payloads import parse_payload
from tests.client.fake_market import FakeMarket
from tests.proxy.conftest import Served, serve

DAY_MS = 24 * 3_600_000


def said(market: FakeMarket, place: int = -1) -> list[tuple[str, str]]:
    """What the node was sent."""
    payload: Any = parse_payload(list(market.bundles.values())[place].payload)
    return [(turn.role, turn.content) for turn in payload.messages]


async def test_response_has_text_cost_and_a_receipt_that_verifies(
    openai: AsyncOpenAI, market: FakeMarket
) -> None:
    found: Any = await openai.responses.create(model="tiny-chat", input="hi", instructions="Be kind.")
    assert (found.output_text, found.status, found.object) == ("Hello, world", "completed", "response")
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.cost) == (5, 2, 0.000012)
    assert failures(verify_receipt(found.receipt)) == []
    assert (found.id, found.job_id, found.instructions) == ("resp_1", "job_1", "Be kind.")
    assert said(market) == [("system", "Be kind."), ("user", "hi")]
    assert [voucher.amount_atoms for voucher in market.vouchers] == [12]


async def test_streamed_response_has_openais_events_in_order(openai: AsyncOpenAI) -> None:
    stream = await openai.responses.create(model="tiny-chat", input="hi", stream=True)
    events: list[Any] = [event async for event in stream]
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello, world"
    whole = events[-1].response
    assert (whole.output_text, whole.usage.cost_details["atoms"]) == ("Hello, world", "12")
    assert failures(verify_receipt(whole.receipt)) == []


async def test_stream_that_breaks_ends_with_a_failed_response(
    openai: AsyncOpenAI, market: FakeMarket
) -> None:
    market.nodes[1].behaviour = "refuse"
    stream = await openai.responses.create(model="tiny-chat", input="hi", stream=True)
    events: list[Any] = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert (events[-1].response.problem["code"], events[-1].response.problem["charged"]) == (
        "node_busy",
        False,
    )


async def test_response_goes_on_from_an_earlier_one_also_after_a_restart(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    first = (
        await serve(watt).openai().responses.create(model="tiny-chat", input="hi", instructions="Be kind.")
    )
    again = serve(watt).openai()
    shown: Any = await again.responses.retrieve(first.id)
    assert (shown.output_text, shown.instructions, shown.usage.total_tokens) == (
        "Hello, world",
        "Be kind.",
        7,
    )
    await again.responses.create(model="tiny-chat", input="and then?", previous_response_id=first.id)
    assert said(market) == [("user", "hi"), ("assistant", "Hello, world"), ("user", "and then?")]


async def test_answer_that_was_altered_since_is_not_gone_on_from(
    openai: AsyncOpenAI, market: FakeMarket
) -> None:
    first = await openai.responses.create(model="tiny-chat", input="hi")
    (kept,) = market.bundles.values()
    market.bundles[kept.receipt_id] = type(kept)(
        **{name: getattr(kept, name) for name in kept.__dataclass_fields__} | {"chunks": kept.chunks[::-1]}
    )
    for call in (
        openai.responses.retrieve(first.id),
        openai.responses.create(model="tiny-chat", input="more", previous_response_id=first.id),
    ):
        with pytest.raises(APIStatusError) as caught:
            await call
        assert caught.value.code == "receipt_invalid"
    assert len(market.orders) == 1


async def test_response_is_found_while_it_runs_and_after_it_failed(
    openai: AsyncOpenAI, market: FakeMarket
) -> None:
    first = await openai.responses.create(model="tiny-chat", input="hi")
    for phase, status in (("running", "in_progress"), ("failed", "failed"), ("expired", "failed")):
        market.jobs["job_1"] |= {"phase": phase, "receipt_id": None}
        assert (await openai.responses.retrieve(first.id)).status == status
        with pytest.raises(APIStatusError) as caught:
            await openai.responses.create(model="tiny-chat", input="x", previous_response_id=first.id)
        assert caught.value.code == "invalid_request"


async def test_response_that_shall_not_be_stored_is_not(openai: AsyncOpenAI) -> None:
    made = await openai.responses.create(model="tiny-chat", input="a secret", store=False)
    assert (made.output_text, made.store) == ("Hello, world", False)
    with pytest.raises(APIStatusError) as caught:
        await openai.responses.retrieve(made.id)
    assert caught.value.code == "unknown_job"


async def test_what_was_asked_is_forgotten_after_a_day(openai: AsyncOpenAI, market: FakeMarket) -> None:
    first = await openai.responses.create(model="tiny-chat", input="a secret")
    market.clock.ms += DAY_MS + 1_000
    for unknown in (first.id, "resp_nobody"):
        with pytest.raises(APIStatusError) as caught:
            await openai.responses.retrieve(unknown)
        assert caught.value.code == "unknown_job"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
    ],
)
async def test_what_a_response_cannot_be_asked_here_is_named(
    openai: AsyncOpenAI, market: FakeMarket, change: dict[str, Any], param: str
) -> None:
    with pytest.raises(APIStatusError) as caught:
        await openai.responses.create(model="tiny-chat", input="hi", **change)
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (422, "unsupported", param)
    assert market.orders == []


async def test_completion_whole_and_streamed(openai: AsyncOpenAI, market: FakeMarket) -> None:
    whole: Any = await openai.completions.create(model="tiny-chat", prompt="hi", max_tokens=16)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("Hello, world", "stop")
    assert (whole.object, whole.usage.cost) == ("text_completion", 0.000012)
    assert failures(verify_receipt(whole.receipt)) == []
    stream = await openai.completions.create(model="tiny-chat", prompt="hi", stream=True)
    chunks: list[Any] = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "Hello, world"
    assert failures(verify_receipt(chunks[-1].receipt)) == []
    assert said(market) == [("user", "hi")]


@pytest.mark.parametrize("change", [{"n": 2}, {"prompt": ["a", "b"]}])
async def test_completion_of_several_choices_is_refused(
    openai: AsyncOpenAI, market: FakeMarket, change: dict[str, Any]
) -> None:
    make: Any = openai.completions.create
    with pytest.raises(APIStatusError) as caught:
        await make(**{"model": "tiny-chat", "prompt": "hi"} | change)
    assert (caught.value.status_code, caught.value.code) == (422, "unsupported")
    assert market.orders == []


async def test_retried_response_is_the_same_and_paid_once(served: Served, market: FakeMarket) -> None:
    http: httpx2.AsyncClient = served.http()
    body = {"model": "tiny-chat", "input": "hi"}
    found = [
        (await http.post("/v1/responses", json=body, headers={"idempotency-key": "k"})).json()
        for _ in range(2)
    ]
    assert found[0]["id"] == found[1]["id"]
    assert len(market.orders) == 1

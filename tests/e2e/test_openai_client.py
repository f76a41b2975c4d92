"""The stock `openai` client, told nothing but base_url and api_key."""

from __future__ import annotations

import contextlib
import math
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from openai import APIStatusError, AsyncOpenAI, OpenAI

from marketplace.client import verify_receipt
from marketplace.client.verify import failures
from marketplace.local.commands import CHAT_MODEL, EMBED_MODEL
from tests.e2e.checker import check
from tests.e2e.market import MarketUnderTest

QUESTION = [{"role": "user", "content": "What is the capital of France? Answer in one sentence."}]


@pytest.fixture(scope="module")
def openai(market: MarketUnderTest) -> OpenAI:
    return OpenAI(base_url=f"{market.market.gateway_url}/v1", api_key=market.market.api_key)


def test_models_are_listed(openai: OpenAI) -> None:
    assert {model.id for model in openai.models.list()} == {CHAT_MODEL, EMBED_MODEL}


def test_connection_outlives_the_pause_after_which_stock_clients_drop_it(market: MarketUnderTest) -> None:
    used = []
    with contextlib.closing(HTTPConnection(urlsplit(market.market.gateway_url).netloc)) as connection:
        for pause_seconds in (6, 0):
            connection.request("GET", "/healthz")
            used.append(connection.sock)
            assert connection.getresponse().read()
            time.sleep(pause_seconds)
    assert used[0] is used[1]


def test_embedding_is_bought_and_its_receipt_verifies(openai: OpenAI, market: MarketUnderTest) -> None:
    answer = openai.embeddings.create(model=EMBED_MODEL, input=["a cat", "a kitten", "an escrow"])
    cat, kitten, escrow = (row.embedding for row in answer.data)
    assert math.isclose(sum(x * x for x in cat), 1, rel_tol=1e-3)
    assert dot(cat, kitten) > dot(cat, escrow) + 0.2
    assert answer.usage.prompt_tokens > 0
    assert failures(verify_receipt(market.get(f"/v1/receipts/{answer.receipt['id']}"))) == []


def test_chat_completion_streams_and_ends_with_usage(openai: OpenAI, market: MarketUnderTest) -> None:
    stream = openai.chat.completions.create(
        model=CHAT_MODEL, messages=QUESTION, stream=True, max_tokens=24, temperature=0
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Paris" in text
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 1
    last = chunks[-1]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 0
    assert failures(verify_receipt(market.get(f"/v1/receipts/{last.receipt['id']}"))) == []


def test_choices_responses_and_completions_are_bought_and_proven(
    openai: OpenAI, market: MarketUnderTest
) -> None:
    choices = openai.chat.completions.create(model=CHAT_MODEL, messages=QUESTION, n=2, max_tokens=8, seed=1)
    assert [choice.index for choice in choices.choices] == [0, 1]
    first = openai.responses.create(
        model=CHAT_MODEL, input="Name a fruit.", max_output_tokens=8, temperature=0
    )
    events = list(
        openai.responses.create(
            model=CHAT_MODEL,
            input="Another.",
            previous_response_id=first.id,
            max_output_tokens=8,
            stream=True,
        )
    )
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1].response  # type: ignore[union-attr]
    assert openai.responses.retrieve(last.id).output_text == last.output_text != ""
    text = openai.completions.create(model=CHAT_MODEL, prompt="Say hello.", max_tokens=8)
    assert text.choices[0].text
    bundles = [*choices.receipts, first.receipt, last.receipt, text.receipt]
    assert [failures(verify_receipt(market.get(f"/v1/receipts/{bundle['id']}"))) for bundle in bundles] == [
        []
    ] * 5
    for answer in (choices, first, last, text):
        assert int(answer.usage.cost_details["atoms"]) > 0


async def test_async_client_gets_a_whole_completion(market: MarketUnderTest) -> None:
    async with AsyncOpenAI(
        base_url=f"{market.market.gateway_url}/v1", api_key=market.market.api_key
    ) as openai:
        answer = await openai.chat.completions.create(
            model=CHAT_MODEL, messages=QUESTION, max_tokens=24, temperature=0
        )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason in ("stop", "length")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "gpt-9"}, 404, "unknown_model"),
        ({"max_tokens": 0}, 422, "invalid_request"),
        ({"messages": []}, 422, "invalid_request"),
        ({"response_format": {"type": "json_object"}}, 422, "unsupported"),
        ({"extra_body": {"max_cost": "0.000001"}}, 402, "price_above_max"),
    ],
)
def test_errors_reach_the_client_with_code_and_charge(
    openai: OpenAI, change: dict[str, object], status: int, code: str
) -> None:
    call = {"model": CHAT_MODEL, "messages": QUESTION, "max_tokens": 8} | change
    with pytest.raises(APIStatusError) as caught:
        openai.chat.completions.create(**call)  # type: ignore[call-overload]
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["charged"] is False
    assert caught.value.body["hint"]


def test_unknown_key_is_refused(market: MarketUnderTest) -> None:
    stranger = OpenAI(base_url=f"{market.market.gateway_url}/v1", api_key="sk-watt-nobody")
    with pytest.raises(APIStatusError) as caught:
        stranger.embeddings.create(model=EMBED_MODEL, input="a")
    assert caught.value.status_code == 401


def test_books_balance_after_all_this(market: MarketUnderTest, openai: OpenAI) -> None:
    openai.embeddings.create(model=EMBED_MODEL, input="one more")
    assert check(market.evidence()) == []


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))

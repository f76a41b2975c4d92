"""A sealing proxy: its gateway hears sizes, and nothing of what programs of this machine say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from marketplace.client import verify_receipt
from marketplace.client.aio import AsyncWattline
from marketplace.client.verify import failures
from marketplace.protocol.signing import Signer
from tests.client.fakes import Clock, FakeNode
from tests.client.sealed_market import SealedMarket
from tests.proxy.conftest import BUYER, Served, serve

WORDS, SIZE = "zanzibar quorum", {"input": 7, "output": 1}
SAID: Any = {"model": "tiny-chat", "messages": [{"role": "user", "content": WORDS}], "max_tokens": 16}


@pytest.fixture
def sealed_market(buyer: Signer) -> SealedMarket:
    made = SealedMarket([FakeNode(1, price_per_job=10), FakeNode(2, price_per_job=20)], Clock())
    made.chain.accounts[buyer.address] = 5_000_000
    return made


@pytest.fixture
async def sealing(sealed_market: SealedMarket) -> AsyncIterator[Served]:
    desk = dataclasses.replace(sealed_market.desk(BUYER), seal=True)
    async with AsyncWattline(desk, buyer=BUYER) as client:
        made = serve(client)
        yield made
        await made.proxy.aclose()


async def test_stock_client_buys_sealed_and_reads_its_receipt_in_plain(
    sealing: Served, sealed_market: SealedMarket
) -> None:
    openai, http = sealing.openai(), sealing.http()
    answer: Any = await openai.chat.completions.create(**SAID)
    assert answer.choices[0].message.content == "Hello, world"
    assert failures(verify_receipt(answer.receipt)) == []
    stream: Any = await openai.chat.completions.create(**SAID, stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream if c.choices]) == "Hello, world"
    kept = (await http.get(f"/v1/receipts/{answer.receipt['id']}")).json()
    assert kept["request_payload"] == answer.receipt["request_payload"]
    assert WORDS not in json.dumps(sealed_market.calls)


@pytest.mark.parametrize(
    ("body", "units"),
    [
        (SAID, {"input": 95, "output": 16}),
        ({"model": "tiny-chat", "input": [WORDS]}, {"input": 19, "output": 0}),
        (
            {"model": "tiny-chat", "task": "rerank", "body": {"query": WORDS, "documents": ["a"]}},
            {"input": 84, "output": 0},
        ),
        (
            {"model": "tiny-chat", "task": "chat", "units": {"input": 7, "output": 1}},
            {"input": 7, "output": 1},
        ),
    ],
    ids=["messages", "input", "body", "units"],
)
async def test_quote_tells_the_gateway_only_how_large_a_call_is(
    sealing: Served, sealed_market: SealedMarket, body: dict[str, Any], units: dict[str, int]
) -> None:
    found = await sealing.http().post("/v1/quotes", json=body | {"node": 2})
    assert found.status_code == 200
    _, path, asked = sealed_market.calls[-1]
    assert (path, asked["units"], asked["node"]) == ("/v1/quotes", units, 2)
    assert set(asked) == {"model", "task", "units", "node"}
    assert WORDS not in json.dumps(sealed_market.calls)


@pytest.mark.parametrize(
    "body",
    [{"model": "tiny-chat"}, SAID | {"messages": []}, {"model": "tiny-chat", "task": "sing", "body": {}}],
)
async def test_quote_that_cannot_be_read_is_refused_here(
    sealing: Served, sealed_market: SealedMarket, body: dict[str, Any]
) -> None:
    found = await sealing.http().post("/v1/quotes", json=body)
    assert (found.status_code, found.json()["code"]) == (422, "invalid_request")
    assert sealed_market.calls == []

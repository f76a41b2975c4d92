"""Through the proxy too one call is charged at most once: by key, by counted retries, after a kill."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from marketplace.client.aio import AsyncWattline
from marketplace.client.journal import Journal
from marketplace.openai.requests import ChatCall
from marketplace.protocol.signing import Signer
from marketplace.proxy.calls import Hints, unseeded
from tests.client.fake_market import FakeMarket
from tests.proxy.conftest import HI, Served, serve

BODY = {"model": "tiny-chat", "messages": HI, "max_tokens": 16}
CHAT = "/v1/chat/completions"


def paid(market: FakeMarket) -> int:
    newest = {voucher.session_id: voucher.amount_atoms for voucher in market.vouchers}
    return sum(newest.values())


@pytest.mark.parametrize("stream", [False, True])
async def test_same_key_gives_the_same_answer_and_says_so(
    http: httpx2.AsyncClient, market: FakeMarket, stream: bool
) -> None:
    key = {"idempotency-key": "call-1"}
    first = await http.post(CHAT, json=BODY | {"stream": stream}, headers=key)
    again = await http.post(CHAT, json=BODY | {"stream": stream}, headers=key)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["x-job-id"] == first.headers["x-job-id"] == "job_1"
    assert len(market.orders) == 1
    assert paid(market) == 12


async def test_same_key_with_another_body_is_refused(http: httpx2.AsyncClient, market: FakeMarket) -> None:
    key = {"idempotency-key": "call-1"}
    await http.post(CHAT, json=BODY, headers=key)
    other = await http.post(CHAT, json=BODY | {"max_tokens": 17}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(market.orders) == 1


async def test_counted_retry_attaches_to_the_call_before(
    http: httpx2.AsyncClient, market: FakeMarket
) -> None:
    first = await http.post(CHAT, json=BODY, headers={"x-stainless-retry-count": "0"})
    again = await http.post(CHAT, json=BODY, headers={"x-stainless-retry-count": "1"})
    assert again.json()["receipt"]["id"] == first.json()["receipt"]["id"]
    other = await http.post(CHAT, json=BODY, headers={"x-stainless-retry-count": "0"})
    assert other.json()["receipt"]["id"] != first.json()["receipt"]["id"]
    assert len(market.orders) == 2


async def test_stock_client_that_retries_by_itself_pays_once(
    served: Served, market: FakeMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AsyncOpenAI, "_calculate_retry_timeout", lambda *_: 0)
    served = serve(served.proxy.client)
    # The proxy asks 21 times itself before it tells its caller that it does not know.
    market.answers_lost = 30
    answer: Any = await served.openai(retries=2).chat.completions.create(**BODY)
    assert answer.choices[0].message.content == "Hello, world"
    assert (len(market.orders), paid(market)) == (1, 12)


async def test_unknown_outcome_says_how_to_ask_for_it(http: httpx2.AsyncClient, market: FakeMarket) -> None:
    market.answers_lost = 21
    lost = await http.post(CHAT, json=BODY)
    problem = lost.json()
    assert (lost.status_code, problem["code"], problem["retryable"]) == (503, "not_ready", True)
    assert "same call again" in problem["error"]["message"]
    assert (problem["charged"], problem["outcome"]) == (False, "pending")
    assert "x-should-retry" not in lost.headers
    again = await http.post(CHAT, json=BODY, headers={"x-stainless-retry-count": "1"})
    assert (again.status_code, len(market.orders)) == (200, 1)


async def test_call_goes_on_to_its_voucher_when_nobody_waits_any_more(
    served: Served, market: FakeMarket
) -> None:
    call = ChatCall.model_validate(BODY)
    feed = served.proxy.start(call, unseeded(call.payload(0), call.seed), Hints())
    await feed.first()
    await feed.task
    assert (len(served.paid), paid(market)) == (1, 12)


async def test_killed_proxy_sends_the_same_order_again_and_pays_once(
    market: FakeMarket, buyer: Signer, tmp_path: Path
) -> None:
    market.nodes[1].behaviour = "hang"
    call = ChatCall.model_validate(BODY)
    before = serve(await _client(market, buyer, tmp_path))
    feed = before.proxy.start(call, unseeded(call.payload(0), call.seed), Hints(name="call-1"), streamed=True)
    await feed.first()
    await _kill(feed.task)
    assert market.vouchers == []
    market.nodes[1].behaviour = "ok"
    after = serve(await _client(market, buyer, tmp_path))
    answer = await after.http().post(CHAT, json=BODY, headers={"idempotency-key": "call-1"})
    assert answer.json()["choices"][0]["message"]["content"] == "Hello, world"
    assert (len(market.orders), paid(market)) == (1, 12)


async def test_started_again_it_settles_what_was_under_way(
    market: FakeMarket, buyer: Signer, tmp_path: Path
) -> None:
    market.nodes[1].behaviour = "hang"
    call = ChatCall.model_validate(BODY)
    before = serve(await _client(market, buyer, tmp_path))
    feed = before.proxy.start(call, unseeded(call.payload(0), call.seed), Hints())
    await feed.first()
    await _kill(feed.task)
    market.nodes[1].behaviour = "ok"
    after = serve(await _client(market, buyer, tmp_path))
    after.proxy.recover()
    await after.proxy.aclose()
    assert (len(after.paid), len(market.orders), paid(market)) == (1, 1, 12)


async def _client(market: FakeMarket, buyer: Signer, folder: Path) -> AsyncWattline:
    return AsyncWattline(market.desk(buyer, Journal(folder / "buyer.db")), buyer=buyer)


async def _kill(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

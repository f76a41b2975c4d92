"""Sealed orders from the SDK: what leaves, what is believed of what comes back, and every way it breaks."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.client.aio import AsyncWattline
from marketplace.client.bundle import Bundle
from marketplace.client.gateway import Event
from marketplace.client.journal import Journal, SessionUse
from marketplace.client.verify import failures, verify_receipt
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault
from marketplace.protocol.payloads import text_chunk
from marketplace.protocol.signing import Signer
from tests.client.fakes import Clock, FakeNode
from tests.client.sealed_market import SealedMarket

WORDS = "zanzibar quorum"
ASK: Any = {"model": "tiny-chat", "max_tokens": 16}


@pytest.fixture
def market(buyer: Signer) -> SealedMarket:
    made = SealedMarket([FakeNode(1, price_per_job=10), FakeNode(2, price_per_job=20)], Clock())
    made.chain.accounts[buyer.address] = 5_000_000
    return made


def sealing(market: SealedMarket, buyer: Signer, journal: Journal | None = None) -> AsyncWattline:
    desk = dataclasses.replace(market.desk(buyer, journal), seal=True)
    return AsyncWattline(desk, buyer=buyer)


@pytest.fixture
async def watt(market: SealedMarket, buyer: Signer) -> AsyncIterator[AsyncWattline]:
    async with sealing(market, buyer) as client:
        yield client


def told(market: SealedMarket) -> str:
    """Everything the gateway was sent."""
    return json.dumps(market.calls)


async def test_gateway_hears_neither_question_nor_salt_and_the_receipt_holds(
    watt: AsyncWattline, market: SealedMarket
) -> None:
    result = await watt.chat(WORDS, **ASK)
    assert (result.text, result.finish, result.acknowledged) == ("Hello, world", "stop", True)
    assert all(check.ok for check in result.checks)
    assert json.loads(result.bundle.payload)["messages"][0]["content"] == WORDS
    for secret in (WORDS, base64.b64encode(WORDS.encode()).decode(), result.bundle.salt.hex()):
        assert secret not in told(market)
    (quoted,) = [body for _, path, body in market.calls if path == "/v1/quotes"]
    assert quoted == {"model": "tiny-chat", "task": "chat", "units": {"input": 95, "output": 16}}


async def test_control_without_a_seal_the_gateway_hears_it(market: SealedMarket, buyer: Signer) -> None:
    async with AsyncWattline(market.desk(buyer), buyer=buyer) as plain:
        await plain.chat(WORDS, **ASK)
    assert WORDS in told(market)


async def test_streams_vectors_and_tasks_come_back_opened(watt: AsyncWattline) -> None:
    stream = await watt.chat(WORDS, stream=True, **ASK)
    assert [piece async for piece in stream] == ["Hello", ", world"]
    assert (await watt.embed(["a", "b"], model="tiny-chat")).vectors == [[1.0, 2.0], [1.0, 2.0]]
    ranked = await watt.ask("rerank", {"query": "q", "documents": ["a", "b"]}, model="tiny-chat")
    assert [row["index"] for row in ranked.answer["results"]] == [1, 0]


async def test_caller_hears_events_as_of_a_plain_job(watt: AsyncWattline) -> None:
    events: list[Event] = []

    async def heard(event: Event) -> None:
        events.append(event)

    result = await watt.chat(WORDS, heard=heard, **ASK)
    assert base64.b64decode(events[2].data["body"]) == result.bundle.chunks[0]
    assert Bundle.from_json(events[-1].data) == result.bundle


async def test_receipt_kept_by_the_gateway_opens_for_the_key_that_ordered(
    watt: AsyncWattline, market: SealedMarket
) -> None:
    result = await watt.chat(WORDS, **ASK)
    kept = await watt.receipt(result.receipt_id)
    assert Bundle.from_json(kept) == result.bundle
    assert failures(verify_receipt(kept)) == []


async def test_receipt_opens_for_nobody_else(market: SealedMarket, buyer: Signer) -> None:
    async with sealing(market, buyer) as watt:
        receipt_id = (await watt.chat(WORDS, **ASK)).receipt_id
    async with sealing(market, Signer(b"\x12" * 32)) as stranger:
        with pytest.raises(BadRequest) as caught:
            await stranger.receipt(receipt_id)
        assert caught.value.code is ErrorCode.SEAL_UNUSABLE
        closed = await stranger.desk.gateway.get(f"/v1/receipts/{receipt_id}")
    (failed,) = failures(verify_receipt(closed))
    assert "only the key that ordered opens it" in failed.detail


async def test_broken_connection_attaches_again_with_the_same_bytes(
    watt: AsyncWattline, market: SealedMarket
) -> None:
    market.drop_after_chunks = 1
    assert (await watt.chat(WORDS, **ASK)).text == "Hello, world"
    first, second = [body for _, path, body in market.calls if path == "/v1/jobs"]
    assert first == second


async def test_killed_process_sends_the_same_sealed_order_again_and_pays_once(
    market: SealedMarket, buyer: Signer, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    market.nodes[1].behaviour = "hang"
    before = sealing(market, buyer, Journal(path))
    stream = await before.chat(WORDS, stream=True, idempotency_key="k", node=1, **ASK)
    assert await anext(stream) == "Hello"
    await stream.aclose()
    market.nodes[1].behaviour = "ok"
    async with sealing(market, buyer, Journal(path)) as after:
        result = await after.chat(WORDS, idempotency_key="k", node=1, **ASK)
    first, second = [body for _, path, body in market.calls if path == "/v1/jobs"]
    assert (result.text, first == second) == ("Hello, world", True)
    assert [voucher.amount_atoms for voucher in market.vouchers] == [result.cost_atoms]
    assert WORDS not in told(market)


async def test_order_that_moves_on_is_sealed_anew_to_the_next_node(
    watt: AsyncWattline, market: SealedMarket
) -> None:
    market.nodes[1].behaviour = "fail"
    result = await watt.chat(WORDS, **ASK)
    assert (result.node_id, result.attempts) == (2, 2)
    first, second = [body["sealed"] for _, path, body in market.calls if path == "/v1/jobs"]
    assert first != second


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31)], ids=["none", "one that all can open"])
async def test_node_without_a_usable_key_is_sent_nothing(
    watt: AsyncWattline, market: SealedMarket, key: bytes
) -> None:
    market.rekey(1, key)
    assert (await watt.chat(WORDS, **ASK)).node_id == 2
    assert len(market.chain.held) == 1


async def test_where_no_node_has_a_key_nothing_is_ordered_or_set_aside(
    watt: AsyncWattline, market: SealedMarket
) -> None:
    for node_id in market.nodes:
        market.rekey(node_id, bytes(32))
    with pytest.raises(ProviderFault) as caught:
        await watt.chat(WORDS, **ASK)
    assert caught.value.code is ErrorCode.SEAL_UNUSABLE
    assert (market.orders, market.chain.held) == ([], {})
    assert WORDS not in told(market)


def altered(name: str, data: dict[str, Any]) -> dict[str, Any]:
    if name != "chunk":
        return data
    body = bytearray(base64.b64decode(data["body"]))
    body[-1] ^= 1
    return data | {"body": base64.b64encode(body).decode()}


def in_plain(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return data | {"body": base64.b64encode(text_chunk("Hi")).decode()} if name == "chunk" else data


def swapped(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return data | {"index": 1 - data["index"]} if name == "chunk" and data["index"] < 2 else data


def without_its_end(name: str, data: dict[str, Any]) -> dict[str, Any] | None:
    return None if name == "chunk" and data["index"] == 2 else data


def other_annex(name: str, data: dict[str, Any]) -> dict[str, Any]:
    return data | {"annex": data["chunks"][0]} if name == "receipt" else data


TAMPERS = [altered, in_plain, swapped, without_its_end, other_annex]


@pytest.mark.parametrize("tamper", TAMPERS, ids=[t.__name__ for t in TAMPERS])
async def test_stream_that_was_tampered_with_is_never_paid(
    watt: AsyncWattline, market: SealedMarket, tamper: Any
) -> None:
    market.tamper = tamper
    with pytest.raises(ProviderFault) as caught:
        await watt.chat(WORDS, node=1, **ASK)
    assert caught.value.code is ErrorCode.RECEIPT_INVALID
    assert not getattr(caught.value, "charged", False)
    assert market.vouchers == []
    (order,) = market.orders
    assert watt.desk.journal.session(order.session_id).use is SessionUse.RETIRED  # type: ignore[union-attr]


async def test_input_no_node_can_run_is_told_from_the_sealed_annex(
    watt: AsyncWattline, market: SealedMarket
) -> None:
    market.nodes[1].behaviour = "fail, input_too_long"
    with pytest.raises(BadRequest) as caught:
        await watt.chat(WORDS, **ASK)
    assert (caught.value.code, len(market.orders)) == (ErrorCode.INPUT_TOO_LONG, 1)

"""Sealed orders at a node: opened before any work, refused in silence, answered closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from marketplace.protocol import sealing, wire
from marketplace.protocol.annex import read_annex
from marketplace.protocol.errors import ErrorCode
from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import Order, Receipt
from marketplace.protocol.payloads import encode_payload
from marketplace.protocol.sealed import BuyerSeal, Responses
from tests.worker.node.test_link import eventually, linked
from tests.worker.support import DOMAIN, ENCRYPTION, GATEWAY, REPLY, Bench, chat_payload
from worker.node.delivery import Delivery
from worker.node.intake import Refusal

SECRET_WORDS = "zanzibar quorum"


def refused(bench: Bench, frame: wire.OrderFrame) -> Refusal:
    """The refusal; nothing may have been stored."""
    with pytest.raises(Refusal) as caught:
        bench.intake.take(frame, GATEWAY)
    assert sum(bench.ledger.orders.counts().values()) == 0
    return caught.value


def responses_of(frame: wire.OrderFrame) -> Responses:
    """The buyer's end."""
    order_hash = Order.decode(frame.order.message).digest(DOMAIN)
    return BuyerSeal.of(REPLY, sealing.public_key(ENCRYPTION), order_hash).responses


def test_sealed_order_is_stored_opened_with_what_seals_its_answer(bench: Bench) -> None:
    frame, plain = bench.sealed_frame(), bench.frame()
    taken = bench.intake.take(frame, GATEWAY)
    held = bench.ledger.orders.get(taken.order_hash)
    assert held is not None
    assert (held.salt, held.payload) == (plain.salt, plain.payload)
    assert bench.ledger.seals.among([taken.order_hash]) == {taken.order_hash: responses_of(frame)}


def test_plain_order_has_no_seal(bench: Bench) -> None:
    assert bench.ledger.seals.among([bench.take()]) == {}


def test_request_sealed_to_a_former_key_of_this_node_is_refused(bench: Bench) -> None:
    assert refused(bench, bench.sealed_frame(to=b"\x66" * 32)).code is ErrorCode.SEAL_UNUSABLE


def test_altered_request_is_refused(bench: Bench) -> None:
    frame = bench.sealed_frame()
    altered = frame.payload[:-1] + bytes([frame.payload[-1] ^ 1])
    assert refused(bench, frame.model_copy(update={"payload": altered})).code is ErrorCode.SEAL_UNUSABLE


def test_sealed_request_does_not_open_under_another_order(bench: Bench) -> None:
    """Its key signed both; whoever relays cannot pass one's content off as the other's."""
    first, second = bench.sealed_frame(1), bench.sealed_frame(2)
    replayed = second.model_copy(update={"payload": first.payload})
    assert refused(bench, replayed).code is ErrorCode.SEAL_UNUSABLE


@pytest.mark.parametrize(
    ("inside", "changes", "code"),
    [
        (encode_payload(chat_payload(max_tokens=4)), {}, ErrorCode.REQUEST_HASH_MISMATCH),
        (None, {"max_amount_atoms": 10}, ErrorCode.PRICE_ABOVE_MAX),
        (None, {"payload": chat_payload(model="0x" + "99" * 32)}, ErrorCode.INVALID_REQUEST),
    ],
    ids=["another request than was signed", "larger than its order says", "another model"],
)
def test_refusal_says_which_rule_and_nothing_of_the_content(
    bench: Bench, inside: bytes | None, changes: dict[str, Any], code: ErrorCode
) -> None:
    found = refused(bench, bench.sealed_frame(inside=inside, **changes))
    assert (found.code, found.detail) == (code, "the sealed request was refused")


async def test_answer_leaves_closed_and_verifies_once_opened(bench: Bench) -> None:
    async with linked(bench) as made:
        frame = bench.sealed_frame()
        await made.gateway.send(frame)
        order_hash = (await made.gateway.wait_for(wire.Accepted))[0].order_hash
        await asyncio.to_thread(made.finish, order_hash)
        sent = (await made.gateway.wait_for(wire.ReceiptFrame))[0]
        mine, chunks = responses_of(frame), made.gateway.of(wire.ChunkFrame)
        bodies = [mine.open_chunk(chunk.index, chunk.body) for chunk in chunks]
        assert bodies == [b"{}", b"{}"]
        assert len({chunk.body for chunk in chunks}) == 2
        receipt = Receipt.decode(sent.receipt.message)
        assert receipt.response_hash == response_hash(bench.frame().salt, bodies)
        assert read_annex(mine.open_annex(sent.annex)).finish == "stop"
        await eventually(lambda: made.link.delivery.open == [])


async def test_answer_sent_again_is_the_same_bytes(bench: Bench) -> None:
    async with linked(bench, confirm=False) as made:
        await made.gateway.send(bench.sealed_frame())
        order_hash = (await made.gateway.wait_for(wire.Accepted))[0].order_hash
        await asyncio.to_thread(made.finish, order_hash)
        await made.gateway.wait_for(wire.ReceiptFrame)
        await made.gateway.drop()
        receipts = await made.gateway.wait_for(wire.ReceiptFrame, 2)
        bodies = [chunk.body for chunk in made.gateway.of(wire.ChunkFrame)]
        assert receipts[0] == receipts[1]
        assert bodies[:2] == bodies[2:]


async def test_order_confirmed_while_the_seal_of_another_is_looked_up_stops_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bench.receipt(1).order_hash, bench.receipt(2).order_hash
    delivery = Delivery(bench.ledger, GATEWAY, bench.clock, poll_seconds=60)
    loop, look, sent = asyncio.get_running_loop(), bench.ledger.seals.among, asyncio.Event()

    def confirmed_meanwhile(hashes: list[bytes]) -> dict[bytes, Responses]:
        if second in hashes:
            loop.call_soon_threadsafe(delivery.done, first)
        return look(hashes)

    async def send(frame: wire.Frame) -> None:
        assert isinstance(frame, wire.ReceiptFrame)
        if frame.order_hash == first:
            # Known by now, and asked for again beside one that is not.
            delivery.add(first)
            delivery.add(second)
        else:
            sent.set()

    monkeypatch.setattr(bench.ledger.seals, "among", confirmed_meanwhile)
    delivery.add(first)
    running = asyncio.create_task(delivery.run(send))
    waiting = asyncio.create_task(sent.wait())
    await asyncio.wait({running, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    waiting.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert sent.is_set()

"""Bad frames of a node: the right code, and nothing has changed."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.asyncio.client import connect

from marketplace.protocol import wire
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Receipt
from marketplace.protocol.payloads import text_chunk
from marketplace.protocol.signing import Signer
from marketplace.store.tables import FaultRow
from tests.flow.gateway import CHAT_MODEL, NOW_AT, NOW_MS, gateway
from tests.flow.node import Node, bearer, chat_body, funded, voucher_of

STRANGER = Signer(b"\x66" * 32)


async def refused_hello(g, **changes):
    node = Node(g, changes.pop("number", 1), changes.pop("signer", None) or g.put_node(1))
    await node.greet(**changes)
    problem = await node.expect(wire.Problem)
    assert problem.fatal
    with pytest.raises(Exception, match="1008"):
        await node.socket.recv()
    assert len(g.market.links) == 0
    return problem.code


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("bad_signature", {"signer": STRANGER}),
        ("bad_signature", {"challenge": bytes(32)}),
        ("unknown_node", {"node_id": 9}),
        ("clock_skew", {"issued_at_ms": NOW_MS - 60_001}),
    ],
)
async def test_hello_must_prove_a_registered_node(tmp_path, code, changes):
    async with gateway(tmp_path) as g:
        g.put_node(1)
        assert await refused_hello(g, **changes) == code


async def test_node_below_the_minimum_stake_is_refused(tmp_path):
    async with gateway(tmp_path) as g:
        signer = g.put_node(1, stake=999)
        assert await refused_hello(g, signer=signer) == "unknown_node"


async def test_first_frame_must_be_a_hello(tmp_path):
    async with gateway(tmp_path) as g:
        for text, code in (
            ('{"kind":"accepted","order_hash":"0x00"}', "bad_signature"),
            ("{", "malformed_body"),
            ('{"kind":"hello","version":1,"hello":{"message":"0x00","signature":"0x"}}', "malformed_body"),
        ):
            async with connect(g.url.replace("http", "ws") + "/v1/link") as socket:
                await socket.recv()
                await socket.send(text)
                problem = json.loads(await socket.recv())
                assert (problem["kind"], problem["code"], problem["fatal"]) == ("problem", code, True)


async def test_newer_link_replaces_the_older(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        older = nodes[1]
        async with Node(g, 1, older.signer) as newer:
            await older.closed.wait()
            answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
            assert answer.status_code == 200
            assert (older.orders.qsize(), newer.orders.qsize()) == (0, 1)


async def one_order(g, secret, node):
    call = asyncio.create_task(g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret)))
    frame = await node.orders.get()
    await node.calm()
    return call, frame


async def said(node, text_or_frame):
    text = text_or_frame if isinstance(text_or_frame, str) else wire.encode_frame(text_or_frame)
    await node.socket.send(text)
    return (await node.expect(wire.Problem)).code


async def test_malformed_and_misdirected_frames_change_nothing(tmp_path):
    async with (
        gateway(tmp_path) as g,
        funded(g, 1, 2, behaviours={1: Node.idle, 2: Node.idle}) as (secret, nodes, _),
    ):
        call, frame = await one_order(g, secret, nodes[1])
        here, other, order = nodes[1], nodes[2], nodes[1].hash_of(frame)
        before = g.rows()
        assert await said(here, "{") == "malformed_body"
        assert await said(here, '{"kind":"nonsense"}') == "malformed_body"
        assert await said(here, '{"kind":"accepted","order_hash":"0x00","extra":1}') == "malformed_body"
        beat = '{"kind":"heartbeat","free_slots":-1,"queue_depth":0,"loaded":[],"running":[]}'
        assert await said(here, beat) == "malformed_body"
        for bad in (
            wire.Accepted(order_hash=order),
            wire.Refused(order_hash=order, code="node_busy"),
            wire.ChunkFrame(order_hash=order, index=0, body=text_chunk("x")),
            wire.VoucherTaken(session_id=bytes(32), through_seq=1),
        ):
            assert await said(other, bad) == "order_misdirected"
        receipt, annex = other.receipt_of(frame, [])
        foreign = wire.ReceiptFrame(order_hash=order, receipt=other.sign(receipt), annex=annex, chunks=0)
        assert await said(other, foreign) == "order_misdirected"
        unknown = wire.Accepted(order_hash=b"\x09" * 32)
        assert await said(here, unknown) == "order_misdirected"
        await other.beat(running=(order,))
        assert (await other.expect(wire.Lease)).orders == []
        assert g.rows() == before
        await here.deliver(frame)
        assert (await call).status_code == 200


async def test_unsigned_or_foreign_receipt_is_refused_and_the_order_stays_open(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        call, frame = await one_order(g, secret, nodes[1])
        node, before = nodes[1], g.rows()
        receipt, annex = node.receipt_of(frame, [])
        order = node.hash_of(frame)
        for message, signature, code in (
            (b"\x00", b"", "malformed_body"),
            (receipt.encode(), b"", "bad_signature"),
            (receipt.encode(), STRANGER.sign(receipt, node.domain), "bad_signature"),
        ):
            signed = wire.Signed(message=message, signature=signature)
            bad = wire.ReceiptFrame(order_hash=order, receipt=signed, annex=annex, chunks=0)
            assert await said(node, bad) == code
        other, annex = node.receipt_of(frame, [], order_hash=b"\x09" * 32)
        swapped = wire.ReceiptFrame(order_hash=order, receipt=node.sign(other), annex=annex, chunks=0)
        assert await said(node, swapped) == "order_misdirected"
        assert g.rows() == before
        await node.deliver(frame)
        assert (await call).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_atoms": 20},
        {"response_hash": bytes(32)},
        {"exec_hash": bytes(32)},
        {"units_out": 3},
        {"status": 7},
        {"finished_at_ms": NOW_MS + 10_000},
        {"started_at_ms": NOW_MS + 1},
    ],
)
async def test_signed_lie_is_kept_as_evidence_and_never_paid(tmp_path, changes):
    async with (
        gateway(tmp_path) as g,
        funded(g, 1, 2, behaviours={1: Node.idle}) as (secret, nodes, opened),
    ):
        call, frame = await one_order(g, secret, nodes[1])
        await nodes[1].deliver(frame, **changes)
        assert (await nodes[1].expect(wire.Problem)).code == "receipt_invalid"
        answer = await call
        assert answer.json()["receipt"]["node"]["node_id"] == 2
        with g.store.reading() as tx:
            (fault,) = tx.query(FaultRow).all()
        assert Receipt.decode(fault.message).order_hash == nodes[1].hash_of(frame)
        assert [g.session(s).owed_atoms for s in opened.values()] == [0, 19]
        assert [g.session(s).reserved_atoms for s in opened.values()] == [0, 0]


async def test_second_receipt_for_one_order_is_evidence_and_the_first_stays(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        frame = nodes[1].orders.get_nowait()
        await nodes[1].deliver(frame, energy_millijoules=5)
        assert (await nodes[1].expect(wire.Problem)).code == "receipt_invalid"
        assert g.session(opened[1]).owed_atoms == 19
        with g.store.reading() as tx:
            assert tx.query(FaultRow).count() == 1


async def test_chunk_that_changes_its_mind_is_refused(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        call, frame = await one_order(g, secret, nodes[1])
        node = nodes[1]
        await node.send_chunks(frame, [text_chunk("Hello")])
        other = wire.ChunkFrame(order_hash=node.hash_of(frame), index=0, body=text_chunk("Bye"))
        assert await said(node, other) == "receipt_invalid"
        huge = wire.ChunkFrame(order_hash=node.hash_of(frame), index=1 << 17, body=b"x")
        assert await said(node, huge) == "body_too_large"
        await node.deliver(frame)
        assert (await call).status_code == 200


async def test_bad_offers_leave_the_former_ones(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _):
        node, before = nodes[1], g.rows()
        models = [
            wire.OfferedModel(model_id=CHAT_MODEL, name="tiny", task="chat", context_tokens=512, loaded=True)
        ]
        good = node.offer_of(CHAT_MODEL)
        foreign = wire.Signed(message=good.encode(), signature=STRANGER.sign(good, node.domain))
        for code, signed, listed in (
            ("bad_signature", foreign, models),
            ("offer_expired", node.sign(node.offer_of(CHAT_MODEL, valid_until=NOW_AT)), models),
            ("order_misdirected", node.sign(node.offer_of(CHAT_MODEL, node_id=2)), models),
            ("unknown_model", node.sign(good), []),
            ("malformed_body", wire.Signed(message=b"\x00", signature=b""), models),
        ):
            assert await said(node, wire.Offers(offers=[signed], models=listed)) == code
        assert g.rows() == before


async def test_refused_voucher_is_remembered_and_offered_again_after_a_superseded_receipt(tmp_path):
    async def refuse(frame):
        voucher, _ = voucher_of(frame)
        await node.send(
            wire.VoucherTaken(
                session_id=voucher.session_id, through_seq=voucher.through_seq, code="voucher_mismatch"
            )
        )

    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        node = nodes[1]
        first, lost = await one_order(g, secret, node)
        g.clock.now_ms += g.market.terms.lease_ms + 1
        await g.tick()
        node.behaviour, node.take = Node.work, refuse
        await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        await node.expect(wire.VoucherFrame)
        await node.calm()
        assert '"voucher_mismatch' in g.rows() or "voucher_mismatch" in g.rows()
        del node.take
        await node.deliver(lost, finished_at_ms=NOW_MS, started_at_ms=NOW_MS)
        await node.expect(wire.Superseded)
        again = await node.expect(wire.VoucherFrame)
        assert to_hex(voucher_of(again)[0].session_id) == opened[1]
        g.market.hang_up()
        await first

"""Orders and vouchers signed by the buyer's own key."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from marketplace.protocol import wire
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Visit
from marketplace.protocol.payloads import Answer
from marketplace.protocol.signing import Signer
from tests.flow.gateway import CHAT_MODEL, DOMAIN, EMBED_MODEL, NOW_AT, NOW_MS, gateway
from tests.flow.node import Node, voucher_of
from tests.flow.sdk import sdk

STRANGER = Signer(b"\x66" * 32)


def events_of(text: str) -> list[tuple[str, dict]]:
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip().split("\n\n")]
    return [(block.get("event", "message"), json.loads(block["data"])) for block in blocks]


async def test_order_streams_chunks_then_the_receipt(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        answer = await buyer.place(accept="text/event-stream")
        events = events_of(answer.text)
        assert [name for name, _ in events] == ["chunk", "chunk", "chunk", "receipt"]
        assert Answer([base64.b64decode(data["body"]) for name, data in events[:3]]).text == "Hello world"
        assert [data["index"] for _, data in events[:3]] == [0, 1, 2]
        assert events[3][1]["fields"]["amount"] == "19"


async def test_same_order_again_is_the_same_job(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, Node.idle) as buyer:
        body = buyer.body()
        first = await buyer.place(body)
        assert first.status_code == 202
        frame = await buyer.node.orders.get()
        watching = asyncio.create_task(buyer.place(body, accept="text/event-stream"))
        await buyer.node.deliver(frame)
        events = events_of((await watching).text)
        assert events[-1][0] == "receipt"
        again = await buyer.place(body, accept="text/event-stream")
        assert again.headers["x-job-id"] == first.json()["job_id"]
        assert [name for name, _ in events_of(again.text)] == ["chunk", "chunk", "chunk", "receipt"]
        assert g.session(buyer.session_id).owed_atoms == 19


async def test_failure_is_returned_and_not_tried_elsewhere(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, Node.fail) as buyer:
        g.put_session(buyer.key.address, 2)
        async with Node(g, 2, g.put_node(2)) as other:
            answer = await buyer.place(accept="text/event-stream")
            events = events_of(answer.text)
            assert [name for name, _ in events] == ["receipt", "problem"]
            assert events[0][1]["fields"]["status"] == 0
            assert (events[1][1]["code"], events[1][1]["charged"]) == ("node_failed", False)
            assert other.orders.empty()


async def test_lapsed_order_fails_and_its_late_receipt_is_superseded(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, Node.idle) as buyer:
        call = asyncio.create_task(buyer.place(accept="text/event-stream"))
        frame = await buyer.node.orders.get()
        g.clock.now_ms += g.market.terms.lease_ms + 1
        await g.tick()
        assert events_of((await call).text)[-1][1]["code"] == "node_failed"
        await buyer.node.deliver(frame, finished_at_ms=NOW_MS, started_at_ms=NOW_MS)
        await buyer.node.expect(wire.Superseded)
        assert g.session(buyer.session_id).owed_atoms == 0


BAD_ORDERS = [
    ("bad_signature", {"signer": STRANGER}, {}),
    ("unknown_session", {"session_id": b"\x09" * 32}, {}),
    ("offer_unknown", {"offer_hash": b"\x09" * 32}, {}),
    ("request_hash_mismatch", {"request_hash": b"\x09" * 32}, {}),
    ("order_expired", {"deadline_ms": NOW_MS}, {}),
    ("clock_skew", {"issued_at_ms": NOW_MS - 2_001}, {}),
    ("clock_skew", {"issued_at_ms": NOW_MS + 2_001}, {}),
    ("order_replayed", {"seq": 0}, {}),
    ("price_above_max", {"max_amount_atoms": 41}, {}),
    ("session_underfunded", {"max_amount_atoms": 10_000_001}, {}),
    ("invalid_request", {"deadline_ms": NOW_MS + 900_001}, {}),
    ("session_expired", {}, {"closed": True}),
    ("session_expired", {}, {"expires_at": NOW_AT}),
    ("session_expired", {}, {"expires_at": NOW_AT + 60}),
    ("session_expired", {}, {"key_epoch": 2}),
    ("order_misdirected", {}, {"node_id": 2}),
    ("order_replayed", {}, {"through_seq": 1}),
]


@pytest.mark.parametrize(("code", "changes", "columns"), BAD_ORDERS)
async def test_bad_order_changes_nothing(tmp_path, code, changes, columns):
    async with gateway(tmp_path) as g, sdk(g, **columns) as buyer:
        body, before = buyer.body(**changes), g.rows()
        answer = await buyer.place(body)
        assert (answer.json()["code"], answer.json()["charged"]) == (code, False)
        assert answer.headers["content-type"] == "application/problem+json"
        assert g.rows() == before
        assert buyer.node.orders.empty()


BAD_BODIES = [
    ("malformed_body", lambda body: "not json"),
    ("invalid_request", lambda body: body | {"order": body["order"] | {"seq": -1}}),
    ("invalid_request", lambda body: body | {"order": {"seq": 1}}),
    ("invalid_request", lambda body: body | {"order": body["order"] | {"extra": 1}}),
    ("invalid_request", lambda body: body | {"signature": "0xzz"}),
    ("bad_signature", lambda body: body | {"signature": "0x"}),
    ("bad_signature", lambda body: body | {"signature": "0x" + "ff" * 65}),
    ("invalid_request", lambda body: body | {"salt": "0x00"}),
    ("request_hash_mismatch", lambda body: body | {"salt": "0x" + "00" * 32}),
    ("invalid_request", lambda body: body | {"payload": "%%%"}),
    ("request_hash_mismatch", lambda body: body | {"payload": "AAAA"}),
    ("invalid_request", lambda body: {k: v for k, v in body.items() if k != "salt"}),
]


@pytest.mark.parametrize(("code", "spoil"), BAD_BODIES)
async def test_malformed_order_changes_nothing(tmp_path, code, spoil):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        body, before = spoil(buyer.body()), g.rows()
        raw = body if isinstance(body, str) else json.dumps(body)
        answer = await g.http.post("/v1/jobs", content=raw, headers={"content-type": "application/json"})
        assert (answer.json()["code"], answer.json()["charged"]) == (code, False)
        assert g.rows() == before


async def test_payload_for_another_model_or_unreadable_is_refused(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        before = g.rows()
        other = await buyer.place(buyer.body(buyer.payload(model=to_hex(EMBED_MODEL))))
        assert other.json()["code"] == "order_misdirected"
        garbage = await buyer.place(buyer.body(b"{}"))
        assert garbage.json()["code"] == "invalid_request"
        assert g.rows() == before


async def test_second_order_at_a_taken_seq_is_refused(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, Node.idle) as buyer:
        await buyer.place()
        await buyer.node.orders.get()
        await buyer.node.calm()
        body, before = buyer.body(seq=1, max_amount_atoms=999), g.rows()
        answer = await buyer.place(body)
        assert answer.json()["code"] == "order_replayed"
        assert g.rows() == before


async def test_offer_that_was_replaced_holds_until_it_ends(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        body = buyer.body()
        await buyer.node.offer(price_per_job_atoms=11)
        await buyer.node.calm()
        answer = await buyer.place(body, accept="text/event-stream")
        receipt = events_of(answer.text)[-1][1]
        assert receipt["fields"]["amount"] == "19"


async def test_offer_that_has_ended_is_refused(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        await buyer.node.offer(valid_until=NOW_AT + 20)
        await buyer.node.calm()
        offer_hash = buyer.node.offer_of(CHAT_MODEL, valid_until=NOW_AT + 20).digest(DOMAIN)
        g.clock.now_ms = NOW_MS + 20_000
        body = buyer.body(offer_hash=offer_hash, issued_at_ms=g.clock.now_ms)
        assert (await buyer.place(body)).json()["code"] == "offer_expired"


async def test_offer_of_a_withdrawn_model_is_refused(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        body = buyer.body()
        await buyer.node.offer(without=CHAT_MODEL)
        await buyer.node.calm()
        assert (await buyer.place(body)).json()["code"] == "offer_expired"


async def test_order_for_a_node_that_is_away_or_draining_is_refused(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        await buyer.node.beat(draining=True)
        await buyer.node.expect(wire.Lease)
        assert (await buyer.place()).json()["code"] == "node_busy"
        await buyer.node.leave()
        answer = await buyer.place()
        assert (answer.json()["code"], answer.status_code) == ("no_node", 503)
        assert "x-should-retry" not in answer.headers


async def test_voucher_is_stored_and_forwarded_and_may_come_twice(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        for _ in range(3):
            await buyer.place(accept="text/event-stream")
        body = await buyer.voucher(3)
        first = await g.http.post("/v1/vouchers", json=body)
        assert first.json() == {
            "session_id": buyer.session_id,
            "through_seq": 3,
            "amount_atoms": "57",
            "new": True,
        }
        frame = await buyer.node.expect(wire.VoucherFrame)
        assert voucher_of(frame)[0].to_json() == body["voucher"]
        assert (await g.http.post("/v1/vouchers", json=body)).json()["new"] is False
        visit = Visit(key=buyer.key.address, issued_at_ms=NOW_MS)
        header = f"{to_hex(visit.encode())}.{to_hex(buyer.key.sign(visit, DOMAIN))}"
        jobs = (await g.http.get("/v1/jobs", headers={"x-watt-visit": header})).json()["data"]
        assert {job["phase"] for job in jobs} == {"acknowledged"}


async def test_voucher_passes_over_seqs_this_gateway_never_saw(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        await buyer.place(accept="text/event-stream")
        buyer.seq = 4
        await buyer.place(accept="text/event-stream")
        answer = await g.http.post("/v1/vouchers", json=await buyer.voucher(5))
        assert answer.json()["amount_atoms"] == "38"
        late = await buyer.place(buyer.body(seq=3))
        assert late.json()["code"] == "order_replayed"


BAD_VOUCHERS = [
    ("voucher_mismatch", {"amount_atoms": 18}),
    ("voucher_mismatch", {"amount_atoms": 20}),
    ("voucher_mismatch", {"receipts_root": bytes(32)}),
    ("bad_signature", {"signer": STRANGER}),
    ("unknown_session", {"session_id": b"\x09" * 32}),
]


@pytest.mark.parametrize(("code", "changes"), BAD_VOUCHERS)
async def test_bad_voucher_changes_nothing(tmp_path, code, changes):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        await buyer.place(accept="text/event-stream")
        body, before = await buyer.voucher(1, **changes), g.rows()
        answer = await g.http.post("/v1/vouchers", json=body)
        assert (answer.json()["code"], answer.json()["charged"]) == (code, False)
        assert g.rows() == before


async def test_voucher_over_a_running_order_or_below_the_last_one_is_refused(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        await buyer.place(accept="text/event-stream")
        buyer.node.behaviour = Node.idle
        await buyer.place()
        early = await g.http.post("/v1/vouchers", json=await buyer.voucher(2))
        assert early.json()["code"] == "voucher_mismatch"
        assert "seq 2 has not ended" in early.json()["detail"]
        assert (await g.http.post("/v1/vouchers", json=await buyer.voucher(1))).status_code == 200
        lower = await g.http.post("/v1/vouchers", json=await buyer.voucher(0))
        assert lower.json()["code"] == "voucher_mismatch"


async def test_visit_must_be_fresh_and_signed_by_its_key(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:

        async def code(visit, signer):
            header = f"{to_hex(visit.encode())}.{to_hex(signer.sign(visit, DOMAIN))}"
            return (await g.http.get("/v1/jobs", headers={"x-watt-visit": header})).json().get("code")

        fresh = Visit(key=buyer.key.address, issued_at_ms=NOW_MS)
        assert await code(fresh, buyer.key) is None
        assert await code(fresh, STRANGER) == "bad_signature"
        assert (
            await code(Visit(key=buyer.key.address, issued_at_ms=NOW_MS - 300_001), buyer.key) == "clock_skew"
        )
        answer = await g.http.get("/v1/jobs", headers={"x-watt-visit": "0xzz.0x"})
        assert answer.json()["code"] == "bad_signature"

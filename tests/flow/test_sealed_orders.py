"""Orders the gateway relays and cannot read."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import pytest

from marketplace.client.envelope import opened_bundle
from marketplace.client.verify import verify_receipt
from marketplace.keeper.clockwork import Clockwork
from marketplace.protocol import merkle, sealing, wire
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Order
from marketplace.protocol.payloads import canonical_json, finish_chunk, text_chunk
from marketplace.protocol.sealed import MAGIC, BuyerSeal, Responses, open_request, reply_secret
from marketplace.store import jobs, receipts
from marketplace.store.tables import Tx
from tests.flow.gateway import DOMAIN, gateway
from tests.flow.node import Node
from tests.flow.sdk import Sdk, sdk
from tests.flow.test_sdk_orders import events_of

WORDS = "zanzibar quorum"
SECRET, SALT = b"\x0c" * 32, b"so salty, so sour. 0123456789abc"
STREAM = {"accept": "text/event-stream"}


def body_of(buyer: Sdk, **changes: Any) -> dict[str, Any]:
    """Body of `POST /v1/jobs` for words that only node 1 may read."""
    payload = buyer.payload(messages=({"role": "user", "content": WORDS},))
    plain = buyer.body(payload)
    order = dataclasses.replace(
        Order.from_json(plain["order"]), request_hash=merkle.request_hash(SALT, payload)
    )
    reply = reply_secret(buyer.key.secret, order.session_id, order.seq, order.request_hash)
    order = dataclasses.replace(order, reply_key=sealing.public_key(reply))
    seal = BuyerSeal.of(reply, sealing.public_key(SECRET), order.digest(DOMAIN))
    return {
        "order": order.to_json(),
        "signature": to_hex(buyer.key.sign(order, DOMAIN)),
        "sealed": base64.b64encode(seal.seal(SALT, payload)).decode(),
    } | changes


def opened(node: Node, frame: wire.OrderFrame) -> tuple[wire.OrderFrame, Responses]:
    """The frame as the node works on it."""
    found = open_request(SECRET, Order.decode(frame.order.message), node.hash_of(frame), frame.payload)
    return frame.model_copy(update={"salt": found.salt, "payload": found.payload}), found.responses


async def answer(node: Node, frame: wire.OrderFrame, **changes: Any) -> None:
    """Works as a node does that was sent a sealed order."""
    await node.idle(frame)
    plain, responses = opened(node, frame)
    chunks = [text_chunk(WORDS[:8]), text_chunk(WORDS[8:]), finish_chunk("stop")]
    receipt, annex = node.receipt_of(plain, chunks, **changes)
    await node.send_chunks(frame, [responses.seal_chunk(i, body) for i, body in enumerate(chunks)])
    await node.send_receipt(frame, receipt, responses.seal_annex(annex), len(chunks))


async def test_gateway_relays_stores_and_shows_a_job_it_cannot_read(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, answer) as buyer:
        placed = await buyer.place(body_of(buyer), **STREAM)
        events = events_of(placed.text)
        assert [name for name, _ in events] == ["chunk", "chunk", "chunk", "receipt"]
        receipt = events[-1][1]
        assert (receipt["sealed"], receipt["salt"], receipt["fields"]["amount"]) == (True, "0x", "19")
        kept = (await g.http.get(f"/v1/receipts/{receipt['id']}")).json()
        plain = opened_bundle(kept, buyer.key, DOMAIN)
        held = {check.name for check in verify_receipt(plain) if check.ok}
        assert {"request hash", "response hash", "exec hash", "answer", "model", "price"} <= held
        job = (await g.http.get(f"/v1/jobs/{placed.headers['x-job-id']}")).json()
        assert (job["phase"], job["charged"], job["task"], job["result"]) == ("delivered", True, "chat", None)
        assert g.session(buyer.session_id).owed_atoms == 19
        for secret in (WORDS, WORDS[:8], SALT.hex(), SALT.decode()):
            assert secret not in placed.text + str(kept) + str(job) + g.rows()


async def test_same_sealed_order_again_is_the_same_job(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, answer) as buyer:
        body = body_of(buyer)
        first = await buyer.place(body, **STREAM)
        again = await buyer.place(body, **STREAM)
        assert again.headers["x-job-id"] == first.headers["x-job-id"]
        assert events_of(again.text) == events_of(first.text)
        assert g.session(buyer.session_id).owed_atoms == 19


async def test_answer_is_relayed_as_it_comes_though_the_gateway_restarts(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, Node.idle) as buyer:
        body = body_of(buyer)
        await buyer.place(body)
        frame = await buyer.node.orders.get()
        async with gateway(tmp_path, clock=g.clock) as after:
            node = Node(after, 1, buyer.node.signer, Node.idle)
            async with node:
                await answer(node, frame)
                await node.expect(wire.Delivered)
            placed = await after.http.post("/v1/jobs", json=body, headers=STREAM)
            assert [name for name, _ in events_of(placed.text)] == ["chunk", "chunk", "chunk", "receipt"]


async def test_receipt_of_sealed_work_is_held_to_price_and_time_all_the_same(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, Node.idle) as buyer:
        body = body_of(buyer)
        await buyer.place(body)
        frame = await buyer.node.orders.get()
        await answer(buyer.node, frame, amount_atoms=20)
        assert "19 are due" in (await buyer.node.expect(wire.Problem)).detail
        job = (await buyer.place(body)).json()
        assert (job["phase"], job["charged"]) == ("failed", False)
        assert g.session(buyer.session_id).owed_atoms == 0


async def test_failed_sealed_work_tells_its_buyer_why(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, Node.idle) as buyer:
        body = body_of(buyer)
        await buyer.place(body)
        frame = await buyer.node.orders.get()
        await answer(buyer.node, frame, status=0, finish="input_too_long")
        await buyer.node.expect(wire.Delivered)
        events = events_of((await buyer.place(body, **STREAM)).text)
        assert (events[-2][0], events[-1][1]["code"], events[-1][1]["charged"]) == (
            "receipt",
            "node_failed",
            False,
        )
        annex = base64.b64decode(opened_bundle(events[-2][1], buyer.key, DOMAIN)["annex"])
        assert b"input_too_long" in annex


async def test_refusal_of_the_node_is_free(tmp_path):
    async def refuse(node: Node, frame: wire.OrderFrame) -> None:
        await node.send(wire.Refused(order_hash=node.hash_of(frame), code="seal_unusable"))

    async with gateway(tmp_path) as g, sdk(g, refuse) as buyer:
        ((_, problem),) = events_of((await buyer.place(body_of(buyer), **STREAM)).text)
        assert (problem["code"], problem["charged"]) == ("no_node", False)
        assert "seal_unusable" in problem["detail"]
        assert g.session(buyer.session_id).reserved_atoms == 0


async def test_deleted_sealed_job_leaves_no_sealed_bytes(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, answer) as buyer:
        body = body_of(buyer, retain="5m")
        job_id = (await buyer.place(body, **STREAM)).headers["x-job-id"]

        def kept(tx: Tx) -> tuple[bytes, int, bytes]:
            job = jobs.find(tx, job_id)
            return (
                job.payload,
                len(receipts.chunks(tx, job.order_hash)),
                receipts.find(tx, job.order_hash).annex[: len(MAGIC)],
            )

        assert await g.market.read(kept) == (base64.b64decode(body["sealed"]), 3, MAGIC)
        g.clock.now_ms += 301_000
        await Clockwork(g.market).forget()
        assert await g.market.read(kept) == (b"", 0, b"")
        assert (await g.http.get(f"/v1/jobs/{job_id}")).json()["deletion"] is not None


BAD = [
    ("both forms", lambda body: body | {"salt": to_hex(SALT), "payload": "e30="}),
    ("a salt beside it", lambda body: body | {"salt": to_hex(SALT)}),
    ("neither", lambda body: {name: body[name] for name in ("order", "signature")}),
    ("no base64", lambda body: body | {"sealed": "%%%"}),
    ("not sealed", lambda body: body | {"sealed": base64.b64encode(canonical_json({"v": 1})).decode()}),
    ("empty", lambda body: body | {"sealed": ""}),
]


@pytest.mark.parametrize("change", [change for _, change in BAD], ids=[name for name, _ in BAD])
async def test_sealed_body_that_is_none_changes_nothing(tmp_path, change):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        body, before = body_of(buyer), g.rows()
        found = await buyer.place(change(body))
        assert (found.json()["code"], found.json()["charged"]) == ("invalid_request", False)
        assert g.rows() == before
        assert buyer.node.orders.empty()


async def test_sealed_request_above_the_limit_is_refused_unread(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        body, before = body_of(buyer, sealed="A" * (1 << 20)), g.rows()
        found = await buyer.place(body)
        assert (found.status_code, found.json()["code"]) == (413, "body_too_large")
        assert g.rows() == before


async def test_sealed_bytes_in_place_of_a_payload_are_none(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        body, before = body_of(buyer), g.rows()
        plain = {"salt": to_hex(SALT), "payload": body.pop("sealed")}
        assert (await buyer.place(body | plain)).json()["code"] == "request_hash_mismatch"
        assert g.rows() == before


async def test_quote_for_a_size_is_the_quote_for_a_call_of_it(tmp_path):
    async with gateway(tmp_path) as g, sdk(g):
        said = {"model": "tiny", "messages": [{"role": "user", "content": WORDS}], "max_tokens": 16}
        spoken = (await g.http.post("/v1/quotes", json=said)).json()
        units = {
            "input": spoken["quotes"][0]["units_in_ceiling"],
            "output": spoken["quotes"][0]["units_out_ceiling"],
        }
        sized = (
            await g.http.post("/v1/quotes", json={"model": "tiny", "task": "chat", "units": units})
        ).json()
        assert sized == spoken | {"input_units": spoken["input_units"] | {"estimate": "given"}}
        for wrong in (said | {"units": units}, {"model": "tiny", "task": "sing", "units": units}):
            found = await g.http.post("/v1/quotes", json=wrong)
            assert found.json()["code"] == "invalid_request"

"""The gateway dies in the middle; what was accepted is done, and charged once."""

from __future__ import annotations

import asyncio

from marketplace.protocol import wire
from marketplace.protocol.payloads import finish_chunk, text_chunk
from tests.flow.gateway import Clock, gateway
from tests.flow.node import Node, bearer, chat_body, funded


async def order_and_crash(path, clock, behaviour=Node.idle, *, before_crash=None):
    """Places a job, then ends the gateway without an answer; gives what the node was sent."""
    async with gateway(path, clock=clock) as g:
        secret, address = await g.new_key()
        signer = g.put_node(1)
        session_id = g.put_session(address, 1)
        node = Node(g, 1, signer, behaviour)
        await node.join()
        call = asyncio.create_task(
            g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        )
        frame = await node.orders.get()
        if before_crash is not None:
            await before_crash(node, frame)
        await node.calm()
        await node.leave()
        g.market.hang_up()
        answer = (await call).json()
        assert (answer["code"], answer["retryable"]) == ("not_ready", True)
    return secret, session_id, frame, signer


async def test_job_completes_after_a_restart_and_is_charged_once(tmp_path):
    clock = Clock()

    async def one_chunk(node, frame):
        await node.send(wire.ChunkFrame(order_hash=node.hash_of(frame), index=0, body=text_chunk("Hello")))
        await node.calm()

    secret, session_id, frame, signer = await order_and_crash(tmp_path, clock, before_crash=one_chunk)
    clock.now_ms += 60_000  # far longer than a lease: the restart gives every lease its time again
    async with gateway(tmp_path, clock=clock) as g:
        await g.tick()
        async with Node(g, 1, signer) as node:
            events = asyncio.create_task(g.http.get(f"/v1/jobs/{frame.job_id}/events"))
            await node.deliver(frame)
            await node.expect(wire.Delivered)
            voucher = await node.expect(wire.VoucherFrame)
            assert voucher.trace_ids == [frame.trace_id]
            job = (await g.http.get(f"/v1/jobs/{frame.job_id}")).json()
            assert (job["phase"], job["charged"], job["result"]["text"]) == (
                "acknowledged",
                True,
                "Hello world",
            )
            assert "event: receipt" in (await events).text
            await node.deliver(frame)
            await node.expect(wire.Delivered)
            assert g.session(session_id).owed_atoms == 19
        again = await g.http.post(
            "/v1/chat/completions",
            json=chat_body(),
            headers=bearer(secret) | {"x-stainless-retry-count": "1"},
        )
        assert again.json()["job_id"] == frame.job_id
        assert g.session(session_id).owed_atoms == 19


async def test_receipt_without_its_earlier_chunks_asks_for_a_fresh_link(tmp_path):
    clock = Clock()
    _, session_id, frame, signer = await order_and_crash(tmp_path, clock)
    async with gateway(tmp_path, clock=clock) as g, Node(g, 1, signer) as node:
        chunks = node.chunks_of(frame)
        last = wire.ChunkFrame(order_hash=node.hash_of(frame), index=2, body=finish_chunk("stop"))
        await node.send(last)
        receipt, annex = node.receipt_of(frame, chunks)
        await node.send_receipt(frame, receipt, annex, 3)
        problem = await node.expect(wire.Problem)
        assert (problem.code, problem.fatal) == ("not_ready", True)
        await node.closed.wait()
        assert g.session(session_id).owed_atoms == 0
        await node.join()
        await node.send_chunks(frame, chunks)
        await node.send_receipt(frame, receipt, annex, 3)
        await node.expect(wire.Delivered)
        assert g.session(session_id).owed_atoms == 19


async def test_order_that_was_not_confirmed_is_sent_again(tmp_path):
    clock = Clock()
    _, _, frame, signer = await order_and_crash(tmp_path, clock, Node.silent)
    async with gateway(tmp_path, clock=clock) as g, Node(g, 1, signer) as node:
        again = await node.orders.get()
        assert again.order == frame.order
        assert again.lease_until_ms >= clock.now_ms
        await node.expect(wire.Delivered)
        assert (await g.http.get(f"/v1/jobs/{frame.job_id}")).json()["phase"] == "acknowledged"


async def test_voucher_that_was_not_taken_is_sent_again(tmp_path):
    async def keep_quiet(frame):
        pass

    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        nodes[1].take = keep_quiet
        await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        first = await nodes[1].expect(wire.VoucherFrame)
        await nodes[1].leave()
        del nodes[1].take
        await nodes[1].join()
        second = await nodes[1].expect(wire.VoucherFrame)
        assert second.voucher == first.voucher
        await nodes[1].leave()
        await nodes[1].join()
        assert not any(isinstance(frame, wire.VoucherFrame) for frame in nodes[1].frames)


async def test_waiting_job_without_order_finds_a_node_after_a_restart(tmp_path):
    clock = Clock()
    secret, _, frame, _ = await order_and_crash(tmp_path, clock)
    async with gateway(tmp_path, clock=clock) as g:
        clock.now_ms += g.market.terms.lease_ms + 1
        await g.tick()
        assert (await g.http.get(f"/v1/jobs/{frame.job_id}")).json()["phase"] == "ordered"
        jobs = (await g.http.get("/v1/jobs", headers=bearer(secret))).json()["data"]
        key = (await g.http.get(f"/v1/jobs/{jobs[0]['job_id']}")).json()["key"]
        g.put_session(key, 2)
        async with Node(g, 2, g.put_node(2)) as second:
            await g.tick()
            await second.expect(wire.Delivered)
        assert (await g.http.get(f"/v1/jobs/{frame.job_id}")).json()["node_id"] == 2

"""Many orders at once out of one session."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx2

from marketplace.protocol import wire
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded, voucher_of

CEILING = 132  # of `chat_body`: 10 + 82 + 2 · 20


async def test_fifty_parallel_orders_never_reserve_more_than_the_session_holds(tmp_path):
    async with (
        gateway(tmp_path) as g,
        funded(g, 1, behaviours={1: Node.idle}, atoms=10 * CEILING + 5) as (secret, nodes, opened),
    ):
        answer = await g.http.post("/v1/quotes", json=chat_body(max_tokens=20))
        assert answer.json()["quotes"][0]["ceiling_atoms"] == str(CEILING)
        limits = httpx2.Limits(max_connections=60)
        async with httpx2.AsyncClient(base_url=g.url, timeout=30, limits=limits) as http:
            body = chat_body(max_tokens=20)
            calls = [
                asyncio.create_task(http.post("/v1/chat/completions", json=body, headers=bearer(secret)))
                for _ in range(50)
            ]
            frames = [await nodes[1].orders.get() for _ in range(10)]
            running = set(calls)
            while len(running) > 10:
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            session = g.session(opened[1])
            assert session.reserved_atoms == 10 * CEILING <= session.deposited_atoms
            assert session.next_seq == 11
            for frame in frames:
                await nodes[1].deliver(frame)
            codes = Counter([answer.status_code for answer in await asyncio.gather(*calls)])
            assert codes == {200: 10, 402: 40}
            session = g.session(opened[1])
            assert (session.owed_atoms, session.reserved_atoms) == (190, 0)


async def test_vouchers_follow_the_longest_prefix_while_answers_come_out_of_order(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        node = nodes[1]
        calls, frames = [], []
        for _ in range(4):
            calls.append(
                asyncio.create_task(
                    g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
                )
            )
            frames.append(await node.orders.get())
        await node.deliver(frames[2])
        await node.deliver(frames[1])
        assert (await calls[1]).status_code == 200
        assert not any(isinstance(frame, wire.VoucherFrame) for frame in node.frames)
        await node.send(wire.Refused(order_hash=node.hash_of(frames[0]), code="node_busy"))
        voucher = await node.expect(wire.VoucherFrame)
        first, _ = voucher_of(voucher)
        assert (first.through_seq, first.amount_atoms) == (3, 38)
        assert len(voucher.trace_ids) == 2
        await node.deliver(frames[3])
        second, _ = voucher_of(await node.expect(wire.VoucherFrame))
        assert (second.through_seq, second.amount_atoms) == (4, 57)
        assert sorted([(await call).status_code for call in calls]) == [200, 200, 200, 503]


async def test_repeated_call_of_the_stock_client_is_charged_once(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        first = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        headers = bearer(secret) | {"x-stainless-retry-count": "1"}
        second = await g.http.post("/v1/chat/completions", json=chat_body(), headers=headers)
        assert second.json()["job_id"] == first.json()["job_id"]
        other = await g.http.post("/v1/chat/completions", json=chat_body(max_tokens=17), headers=headers)
        assert other.json()["job_id"] != first.json()["job_id"]
        assert g.session(opened[1]).owed_atoms == 38
        assert nodes[1].orders.qsize() == 2


async def test_idempotency_key_names_one_job(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _nodes, opened):
        headers = bearer(secret) | {"idempotency-key": "mine"}
        answers = await asyncio.gather(
            *(g.http.post("/v1/chat/completions", json=chat_body(), headers=headers) for _ in range(4))
        )
        assert len({answer.json()["job_id"] for answer in answers}) == 1
        assert g.session(opened[1]).owed_atoms == 19
        other = await g.http.post("/v1/chat/completions", json=chat_body(max_tokens=17), headers=headers)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


async def test_idempotency_key_of_a_failed_job_may_be_used_again(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.refuse}) as (secret, nodes, opened):
        headers = bearer(secret) | {"idempotency-key": "mine"}
        failed = await g.http.post("/v1/chat/completions", json=chat_body(), headers=headers)
        assert failed.status_code == 503
        nodes[1].behaviour = Node.work
        again = await g.http.post("/v1/chat/completions", json=chat_body(), headers=headers)
        assert again.status_code == 200
        assert g.session(opened[1]).owed_atoms == 19

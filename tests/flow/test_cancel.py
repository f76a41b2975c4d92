"""A buyer wants no more: the node stops, what was delivered is paid, and nobody else is asked."""

from __future__ import annotations

import asyncio

import pytest

from marketplace.protocol import wire
from marketplace.protocol.payloads import finish_chunk, text_chunk
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded
from tests.flow.sdk import sdk
from tests.flow.test_sdk_orders import events_of


async def cancelled(node, frame, *texts):
    """What an honest node does when it is told to stop after these texts."""
    told = await node.expect(wire.Cancel)
    assert told.order_hash == node.hash_of(frame)
    if texts:
        chunks = [*map(text_chunk, texts), finish_chunk("cancelled")]
        await node.deliver(frame, chunks=chunks, status=2, finish="cancelled")
    else:
        await node.deliver(frame, chunks=[], status=0, finish="cancelled")


def asked(g, secret):
    return asyncio.create_task(g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret)))


async def test_delivered_prefix_is_paid_and_shown(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: Node.idle}) as (secret, nodes, opened):
        call = asked(g, secret)
        frame = await nodes[1].orders.get()
        await nodes[1].calm()
        job = await g.http.post(f"/v1/jobs/{frame.job_id}/cancel")
        assert (job.status_code, job.json()["phase"]) == (200, "running")
        await cancelled(nodes[1], frame, "Hel", "lo")
        answer = (await call).json()
        assert answer["choices"][0]["message"]["content"] == "Hello"
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 2
        shown = (await g.http.get(f"/v1/jobs/{frame.job_id}")).json()
        # 10 for the job, 5 tokens in at 1, 2 out at 2.
        assert (shown["end_reason"], shown["cost_atoms"], shown["attempts"]) == ("cut_short", "19", 1)
        assert [g.session(s).owed_atoms for s in opened.values()] == [19, 0]
        assert [g.session(s).reserved_atoms for s in opened.values()] == [0, 0]


async def test_job_cancelled_before_its_first_token_is_free_and_goes_to_no_other_node(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: Node.idle}) as (secret, nodes, opened):
        call = asked(g, secret)
        frame = await nodes[1].orders.get()
        await nodes[1].calm()
        await g.http.post(f"/v1/jobs/{frame.job_id}/cancel")
        await cancelled(nodes[1], frame)
        answer = await call
        assert (answer.status_code, answer.json()["code"]) == (410, "cancelled")
        assert answer.json()["charged"] is False
        assert nodes[2].orders.empty()
        assert [g.session(s).owed_atoms for s in opened.values()] == [0, 0]
        assert [g.session(s).reserved_atoms for s in opened.values()] == [0, 0]


@pytest.mark.parametrize("how", ["silence", "refusal"])
async def test_cancelled_job_whose_node_says_nothing_useful_ends_free(tmp_path, how):
    async with (
        gateway(tmp_path) as g,
        funded(g, 1, 2, behaviours={1: Node.silent}) as (secret, nodes, opened),
    ):
        call = asked(g, secret)
        frame = await nodes[1].orders.get()
        await g.http.post(f"/v1/jobs/{frame.job_id}/cancel")
        if how == "refusal":
            await nodes[1].send(wire.Refused(order_hash=nodes[1].hash_of(frame), code="node_busy"))
        else:
            await nodes[1].leave()
            g.clock.now_ms += g.market.terms.lease_ms + 1
            await g.tick()
        assert (await call).json()["code"] == "cancelled"
        assert nodes[2].orders.empty()
        assert [g.session(s).reserved_atoms for s in opened.values()] == [0, 0]


async def test_node_that_was_away_hears_of_the_cancel_when_it_is_back(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        call = asked(g, secret)
        frame = await nodes[1].orders.get()
        await nodes[1].calm()
        await nodes[1].leave()
        await g.http.post(f"/v1/jobs/{frame.job_id}/cancel")
        await nodes[1].join()
        await cancelled(nodes[1], frame, "Hel")
        assert (await call).json()["usage"]["completion_tokens"] == 1


async def test_job_that_waits_for_a_node_ends_at_once(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        call = asked(g, secret)
        frame = await nodes[1].orders.get()
        await nodes[1].leave()
        g.clock.now_ms += g.market.terms.lease_ms + 1
        await g.tick()
        job = (await g.http.post(f"/v1/jobs/{frame.job_id}/cancel")).json()
        assert (job["phase"], job["end_reason"]) == ("failed", "cancelled")
        assert (await call).json()["code"] == "cancelled"


async def test_cancelling_twice_or_too_late_changes_nothing(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        answer = (await asked(g, secret)).json()
        await nodes[1].expect(wire.VoucherFrame)
        await nodes[1].calm()
        before = g.rows()
        for _ in range(2):
            job = await g.http.post(f"/v1/jobs/{answer['job_id']}/cancel")
            assert job.json()["end_reason"] == "done"
        assert g.rows() == before
        assert (await g.http.post("/v1/jobs/job_aaaa/cancel")).status_code == 404


async def test_buyer_with_its_own_key_gets_the_receipt_of_a_cancelled_job_also_when_it_is_free(tmp_path):
    async with gateway(tmp_path) as g, sdk(g, Node.idle) as buyer:
        for texts, names, status in (
            (("Hel",), ["chunk", "chunk", "receipt"], 2),
            ((), ["receipt", "problem"], 0),
        ):
            call = asyncio.create_task(buyer.place(accept="text/event-stream"))
            frame = await buyer.node.orders.get()
            await buyer.node.calm()
            await g.http.post(f"/v1/jobs/{frame.job_id}/cancel")
            await cancelled(buyer.node, frame, *texts)
            events = events_of((await call).text)
            assert [name for name, _ in events] == names
            assert next(data for name, data in events if name == "receipt")["fields"]["status"] == status
        assert events[-1][1]["code"] == "cancelled"
        # Its voucher covers the free one, too: the node's tree has it as a leaf.
        taken = await g.http.post("/v1/vouchers", json=await buyer.voucher(2))
        assert taken.status_code == 200, taken.text

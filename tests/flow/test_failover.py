"""One node fails, another does the job, the caller pays once."""

from __future__ import annotations

import asyncio

import pytest
from openai import AsyncOpenAI

from marketplace.protocol import wire
from marketplace.protocol.payloads import text_chunk
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded


async def jobs_of(g, secret):
    return (await g.http.get("/v1/jobs", headers=bearer(secret))).json()["data"]


@pytest.mark.parametrize("behaviour", [Node.refuse, Node.fail], ids=["refusal", "status_0"])
async def test_another_node_takes_over_at_once(tmp_path, behaviour):
    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: behaviour}) as (secret, _, opened):
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert answer.status_code == 200
        job = (await g.http.get(f"/v1/jobs/{answer.json()['job_id']}")).json()
        assert (job["node_id"], job["attempts"], job["cost_atoms"]) == (2, 2, "19")
        assert [g.session(s).owed_atoms for s in opened.values()] == [0, 19]
        assert [g.session(s).reserved_atoms for s in opened.values()] == [0, 0]
        assert len(await jobs_of(g, secret)) == 1


async def test_lost_link_fails_over_when_the_lease_lapses(tmp_path):
    async with (
        gateway(tmp_path) as g,
        funded(g, 1, 2, behaviours={1: Node.idle}) as (secret, nodes, opened),
    ):
        nodes[2].price = (1_000, 0, 0)
        await nodes[2].offer()
        await nodes[2].beat()
        await nodes[2].expect(wire.Lease)
        call = asyncio.create_task(
            g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        )
        await nodes[1].orders.get()
        await nodes[1].leave()
        await g.tick()
        assert not call.done()
        g.clock.now_ms += g.market.terms.lease_ms + 1
        await g.tick()
        assert (await call).status_code == 200
        assert [g.session(s).owed_atoms for s in opened.values()] == [0, 1_000]
        assert [g.session(s).reserved_atoms for s in opened.values()] == [0, 0]


async def test_heartbeats_keep_a_lease(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        call = asyncio.create_task(
            g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        )
        frame = await nodes[1].orders.get()
        for _ in range(5):
            g.clock.now_ms += g.market.terms.lease_ms - 1
            await nodes[1].beat(running=(nodes[1].hash_of(frame),))
            lease = await nodes[1].expect(wire.Lease)
            assert lease.orders == [nodes[1].hash_of(frame)]
            assert lease.until_ms == g.clock.now_ms + g.market.terms.lease_ms
            await g.tick()
        await nodes[1].deliver(frame)
        assert (await call).status_code == 200


async def test_job_fails_uncharged_when_every_node_fails(tmp_path):
    async with (
        gateway(tmp_path) as g,
        funded(g, 1, 2, behaviours={1: Node.fail, 2: Node.refuse}) as (secret, _, opened),
    ):
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert answer.status_code == 503
        body = answer.json()
        assert (body["code"], body["charged"], body["error"]["charged"]) == ("no_node", False, False)
        assert body["job_id"].startswith("job_")
        for session in map(g.session, opened.values()):
            assert (session.owed_atoms, session.reserved_atoms) == (0, 0)


async def test_three_attempts_are_the_most(tmp_path):
    failing = dict.fromkeys((1, 2, 3, 4), Node.fail)
    async with gateway(tmp_path) as g, funded(g, 1, 2, 3, 4, behaviours=failing) as (secret, nodes, _):
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert answer.json()["code"] == "node_failed"
        assert sum(node.orders.qsize() for node in nodes.values()) == 3


async def test_input_no_node_can_run_is_not_tried_elsewhere(tmp_path):
    async def too_long(node, frame):
        await node.idle(frame)
        await node.deliver(frame, status=0, finish="input_too_long", chunks=[])

    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: too_long}) as (secret, nodes, _):
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.headers["x-should-retry"] == "false"
        assert nodes[2].orders.empty()


async def half_then_fail(node, frame):
    await node.idle(frame)
    await node.deliver(frame, status=0, finish="internal", chunks=[text_chunk("Hel")])


async def test_stream_continues_with_the_second_node_where_texts_agree(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: half_then_fail}) as (secret, _, _):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        texts = [c.choices[0].delta.content or "" async for c in stream if c.choices]
        assert "".join(texts) == "Hello world"


async def test_stream_says_so_when_the_second_node_wrote_another_text(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: half_then_fail}) as (secret, nodes, _):
        nodes[2].text = ("Good day",)
        body = chat_body(stream=True)
        answer = await g.http.post("/v1/chat/completions", json=body, headers=bearer(secret))
        assert '"code":"stream_diverged"' in answer.text
        assert '"charged":true' in answer.text
        job = (await g.http.get(f"/v1/jobs/{answer.headers['x-job-id']}")).json()
        assert job["result"]["text"] == "Good day"


async def test_deadline_ends_a_hanging_job_uncharged(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        call = asyncio.create_task(
            g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        )
        frame = await nodes[1].orders.get()
        g.clock.now_ms += g.market.terms.job_timeout_ms + g.market.terms.delivery_grace_ms + 1
        await nodes[1].beat(running=(nodes[1].hash_of(frame),))
        await nodes[1].expect(wire.Lease)
        await g.tick()
        answer = await call
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_passed")
        assert answer.json()["charged"] is False
        assert g.session(opened[1]).reserved_atoms == 0


async def test_node_without_a_link_is_passed_over(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2) as (secret, nodes, _):
        # The database still says connected: the link itself is the last word.
        g.market.links._links[1].closed = True
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert answer.status_code == 200
        assert answer.json()["receipt"]["node"]["node_id"] == 2
        g.market.links._links[1].close()
        await nodes[1].gone()

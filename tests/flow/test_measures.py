"""What the gateway measures of a job, where the fact is known and once."""

from __future__ import annotations

from marketplace.protocol import wire
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded


def sample(g, name, **labels):
    return g.market.metrics.registry.get_sample_value(name, labels)


async def test_delivered_job_feeds_first_token_stages_and_tokens_once(tmp_path):
    async def slow(node, frame):
        g.clock.now_ms += 40
        await node.idle(frame)
        g.clock.now_ms += 200
        await node.deliver(frame)

    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: slow}) as (secret, nodes, _):
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert answer.status_code == 200
        await nodes[1].calm()
        assert sample(g, "watt_time_to_first_token_seconds_count", task="chat") == 1
        assert sample(g, "watt_time_to_first_token_seconds_sum", task="chat") == 0.24
        for stage in ("dispatch", "queue", "inference", "deliver"):
            assert sample(g, "watt_job_stage_seconds_count", stage=stage) == 1, stage
        assert sample(g, "watt_tokens_total", task="chat", direction="in") == 5
        assert sample(g, "watt_tokens_total", task="chat", direction="out") == 2


async def test_failed_job_bills_no_tokens(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.fail}) as (secret, nodes, _):
        await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        await nodes[1].beat()
        await nodes[1].expect(wire.Lease)
        assert sample(g, "watt_tokens_total", task="chat", direction="out") is None
        assert sample(g, "watt_time_to_first_token_seconds_count", task="chat") is None

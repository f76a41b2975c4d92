"""The stock OpenAI client, with nothing but base_url and api_key."""

from __future__ import annotations

from openai import AsyncOpenAI

from marketplace.api.waiting import Merger
from marketplace.protocol import wire
from marketplace.protocol.payloads import Answer, text_chunk
from tests.flow.gateway import gateway
from tests.flow.node import funded


async def test_stock_client_gets_embeddings(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        found = await client.embeddings.create(model="mini", input=["one", "two"])
        assert [row.embedding for row in found.data] == [[1.0, 0.0, 0.5], [1.0, 1.0, 0.5]]
        assert found.usage.prompt_tokens == 5
        assert found.usage.model_extra["cost_details"]["atoms"] == "15"
        assert found.model_extra["job_id"].startswith("job_")
        assert found.model_extra["receipt"]["fields"]["amount"] == "15"
        row = g.session(opened[1])
        assert (row.owed_atoms, row.reserved_atoms) == (15, 0)


async def test_stock_client_streams_chat_with_final_usage_chunk(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        stream = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hi"}], stream=True, max_tokens=16
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello world"
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        last = chunks[-1]
        assert last.choices == []
        assert last.usage.completion_tokens == 2
        assert last.usage.model_extra["cost"] == 0.000019
        assert last.model_extra["receipt"]["receipt"]["signature"].startswith("0x")
        voucher = await nodes[1].expect(wire.VoucherFrame)
        assert len(voucher.trace_ids) == 1


async def test_stock_client_gets_a_whole_chat_answer(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        found = await client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hi"}], max_completion_tokens=16
        )
        assert found.choices[0].message.content == "Hello world"
        assert found.choices[0].finish_reason == "stop"
        models = await client.models.list()
        assert {m.id for m in models.data} == {"tiny", "mini"}
        job = (await g.http.get(f"/v1/jobs/{found.model_extra['job_id']}")).json()
        assert job["phase"] == "acknowledged"
        assert job["charged"] is True
        assert job["result"] == {"text": "Hello world", "finish": "stop"}


async def test_stock_client_gets_logprobs_whole_and_streamed(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        asked = {
            "model": "tiny",
            "messages": [{"role": "user", "content": "Hi"}],
            "logprobs": True,
            "top_logprobs": 1,
            "max_tokens": 16,
        }
        whole = (await client.chat.completions.create(**asked)).choices[0].logprobs.content
        assert [(row.token, row.logprob, row.bytes) for row in whole] == [(" é", -2.5, [32, 195, 169])] * 2
        assert [(other.token, other.logprob, other.bytes) for other in whole[0].top_logprobs] == [
            ("\N{REPLACEMENT CHARACTER}", -0.1, None)
        ]
        stream = await client.chat.completions.create(**asked, stream=True)
        told = [c.choices[0].logprobs async for c in stream if c.choices]
        assert [row for one in told if one for row in one.content] == whole
        without = await client.chat.completions.create(**asked | {"logprobs": False, "top_logprobs": None})
        assert without.choices[0].logprobs is None


def test_logprobs_of_two_nodes_are_joined_like_their_texts():
    rows = [{"id": i, "token": c, "logprob_micro": 0, "top": []} for i, c in enumerate("abc")]
    merger = Merger()
    assert merger.add("0x1", text_chunk("a", rows[:1])) == ("a", rows[:1])
    assert merger.add("0x2", text_chunk("ab", rows[:2])) == ("b", rows[1:2])
    assert merger.rest(Answer([text_chunk("abc", rows)])) == ("c", rows[2:])
    assert not merger.diverged
    assert merger.add("0x3", text_chunk("x", rows[:1])) == ("", ())
    assert merger.diverged

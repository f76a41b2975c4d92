"""`n`: one call, several jobs, all or none, each charged once."""

from __future__ import annotations

import asyncio
import json

import pytest
from openai import APIError, APIStatusError, AsyncOpenAI, OpenAI
from sqlmodel import select

from marketplace.client.verify import failures, verify_receipt
from marketplace.protocol.payloads import finish_chunk, parse_payload, text_chunk
from marketplace.store.tables import JobRow
from tests.api.test_requests import check_problem
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded

QUESTION = [{"role": "user", "content": "Hi"}]
ASKED = {"model": "tiny", "messages": QUESTION, "max_tokens": 16, "seed": 7}
# 10 for the job, 5 tokens in at 1, 1 out at 2; at most 82 in and 16 out.
EACH, CEILING = 17, 124


def seed_of(frame):
    return parse_payload(frame.payload).seed


async def tell_seed(node, frame):
    """Answers with the seed, so that choices can be told apart."""
    await node.idle(frame)
    await node.deliver(frame, chunks=[text_chunk(f"seed {seed_of(frame)}"), finish_chunk("stop")])


def failing_once(*seeds):
    """Fails the first order of each of these seeds."""
    left = set(seeds)

    async def behave(node, frame):
        if seed_of(frame) not in left:
            return await tell_seed(node, frame)
        left.discard(seed_of(frame))
        return await node.fail(frame)

    return behave


def market(g, *node_ids, behaviour=tell_seed, **more):
    return funded(g, *node_ids, behaviours=dict.fromkeys(node_ids, behaviour), **more)


async def post(g, secret, **changes):
    headers = bearer(secret) | changes.pop("headers", {})
    return await g.http.post("/v1/chat/completions", json=ASKED | changes, headers=headers)


async def keep(stream, chunks):
    """Every chunk, also of a stream that ends with an error."""
    async for chunk in stream:
        chunks.append(chunk)


def max_costs(g):
    with g.store.reading() as tx:
        return sorted(tx.exec(select(JobRow.max_cost_atoms)))


async def test_stock_sync_client_gets_choices_of_seeds_in_a_row_and_a_receipt_for_each(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1) as (secret, _, opened):
        client = OpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        found = await asyncio.to_thread(client.chat.completions.create, **ASKED, n=3)
        assert [(c.index, c.message.content) for c in found.choices] == [
            (0, "seed 7"),
            (1, "seed 8"),
            (2, "seed 9"),
        ]
        usage = found.usage
        assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (15, 3, 18)
        assert usage.model_extra["cost_details"]["atoms"] == str(3 * EACH)
        assert usage.model_extra["cost_details"]["ceiling_atoms"] == str(3 * CEILING)
        assert found.receipt == found.receipts[0]
        assert found.job_id == found.job_ids[0]
        assert [receipt["job_id"] for receipt in found.receipts] == found.job_ids
        assert len({receipt["id"] for receipt in found.receipts}) == 3
        for receipt in found.receipts:
            # The fake node makes no seed.
            assert [c for c in failures(verify_receipt(receipt)) if c.name != "seed"] == []
        session = g.session(opened[1])
        assert (session.owed_atoms, session.reserved_atoms) == (3 * EACH, 0)


async def test_choices_of_a_call_without_a_seed_differ_in_theirs(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1) as (secret, _, _):
        found = (await post(g, secret, n=3, seed=None)).json()
        first, *others = (int(c["message"]["content"].removeprefix("seed ")) for c in found["choices"])
        assert others == [(first + 1) % 2**64, (first + 2) % 2**64]


async def test_one_choice_has_one_receipt_and_no_list(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1) as (secret, _, _):
        body = (await post(g, secret, n=1)).json()
        assert body["receipt"]["job_id"] == body["job_id"]
        assert not {"receipts", "job_ids"} & set(body)


async def test_streamed_choices_come_side_by_side_with_their_index(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1, behaviour=Node.idle) as (secret, nodes, _):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        stream = await client.chat.completions.create(**ASKED, n=2, stream=True)
        node, frames = nodes[1], [await nodes[1].orders.get() for _ in range(2)]
        frames.sort(key=seed_of)
        opening = [(await anext(stream)).choices[0] for _ in range(2)]
        assert [(c.index, c.delta.role) for c in opening] == [(0, "assistant"), (1, "assistant")]
        for index in (1, 0):
            await node.send_chunks(frames[index], [text_chunk(f"<{index}>")])
            choice = (await anext(stream)).choices[0]
            assert (choice.index, choice.delta.content) == (index, f"<{index}>")
        for index in (0, 1):
            chunks = [text_chunk(f"<{index}>"), finish_chunk("stop")]
            await node.deliver(frames[index], chunks=chunks)
            choice = (await anext(stream)).choices[0]
            assert (choice.index, choice.finish_reason) == (index, "stop")
        last = await anext(stream)
        assert last.choices == []
        assert last.usage.model_extra["cost_details"]["atoms"] == str(2 * EACH)
        assert [receipt["job_id"] for receipt in last.receipts] == [frame.job_id for frame in frames]
        assert [chunk async for chunk in stream] == []


@pytest.mark.parametrize("headers", [{"idempotency-key": "k"}, {"x-stainless-retry-count": "1"}])
async def test_same_call_again_is_the_same_jobs_and_costs_nothing(tmp_path, headers):
    async with gateway(tmp_path) as g, market(g, 1) as (secret, _, opened):
        # OpenAI's clients count from 0.
        counted = {name: "0" if name.startswith("x-") else value for name, value in headers.items()}
        first = (await post(g, secret, n=2, headers=counted)).json()
        again = (await post(g, secret, n=2, headers=headers)).json()
        assert again["job_ids"] == first["job_ids"]
        assert again["choices"] == first["choices"]
        assert g.session(opened[1]).owed_atoms == 2 * EACH


async def test_one_key_for_another_number_of_choices_is_refused(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1) as (secret, _, opened):
        await post(g, secret, n=2, headers={"idempotency-key": "k"})
        other = await post(g, secret, n=3, headers={"idempotency-key": "k"})
        check_problem(other, 422, "idempotency_mismatch")
        assert g.session(opened[1]).owed_atoms == 2 * EACH


async def test_parallel_duplicates_of_one_key_attach_to_the_same_jobs(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1) as (secret, nodes, opened):
        calls = [post(g, secret, n=2, headers={"idempotency-key": "k"}) for _ in range(6)]
        found = [answer.json() for answer in await asyncio.gather(*calls)]
        assert len({tuple(body["job_ids"]) for body in found}) == 1
        assert nodes[1].orders.qsize() == 2
        assert g.session(opened[1]).owed_atoms == 2 * EACH


async def test_max_cost_bounds_all_choices_together_and_what_is_left_is_shared(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1) as (secret, nodes, _):
        before = g.rows()
        dear = await post(g, secret, n=2, max_cost="0.000247")
        assert "248 atoms" in check_problem(dear, 402, "price_above_max")["detail"]
        assert g.rows() == before
        assert nodes[1].orders.empty()
        assert (await post(g, secret, n=2, max_cost="0.000261")).status_code == 200
        assert max_costs(g) == [CEILING + 6, CEILING + 6]


@pytest.mark.parametrize(("max_cost", "status"), [("0.000267", 502), ("0.000268", 200)])
async def test_node_that_takes_over_gets_no_more_than_the_choices_share(tmp_path, max_cost, status):
    async with gateway(tmp_path) as g, market(g, 1, 2, behaviour=failing_once(8)) as (secret, nodes, opened):
        # 134 at most: less than all that is allowed, more than what is left for one choice of two.
        nodes[2].price = (20, 1_000_000, 2_000_000)
        await nodes[2].offer()
        await nodes[2].calm()
        answer = await post(g, secret, n=2, max_cost=max_cost)
        assert answer.status_code == status
        assert nodes[2].orders.qsize() == (status == 200)
        assert sum(g.session(s).owed_atoms for s in opened.values()) == (44 if status == 200 else EACH)


async def test_choices_are_placed_over_all_sessions_or_not_at_all(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1, atoms=CEILING) as (secret, nodes, opened):
        before = g.rows()
        check_problem(await post(g, secret, n=2), 402, "session_underfunded")
        assert g.rows() == before
        assert nodes[1].orders.empty()
        second = g.put_session(g.session(opened[1]).key, 1, CEILING)
        assert (await post(g, secret, n=2)).status_code == 200
        assert [g.session(s).owed_atoms for s in (opened[1], second)] == [EACH, EACH]


async def test_failed_choice_says_what_the_others_cost_and_a_retry_pays_only_for_it(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1, behaviour=failing_once(8)) as (secret, _, opened):
        key = {"idempotency-key": "k"}
        answer = await post(g, secret, n=3, headers=key)
        body = answer.json()
        assert (answer.status_code, body["code"], body["charged"]) == (502, "partly_delivered", True)
        assert (body["error"]["charged"], body["retryable"]) == (True, True)
        assert "x-should-retry" not in answer.headers
        assert (body["charged_atoms"], len(body["job_ids"])) == (str(2 * EACH), 2)
        assert "1 of 3 choices failed (1)" in body["detail"]
        assert g.session(opened[1]).owed_atoms == 2 * EACH
        whole = (await post(g, secret, n=3, headers=key)).json()
        assert [c["message"]["content"] for c in whole["choices"]] == ["seed 7", "seed 8", "seed 9"]
        assert [whole["job_ids"][0], whole["job_ids"][2]] == body["job_ids"]
        session = g.session(opened[1])
        assert (session.owed_atoms, session.reserved_atoms) == (3 * EACH, 0)


async def test_stock_retry_completes_a_call_that_failed_in_part(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1, behaviour=failing_once(8)) as (secret, _, opened):
        first = {"x-stainless-retry-count": "0"}
        assert (await post(g, secret, n=2, headers=first)).json()["retryable"] is True
        second = {"x-stainless-retry-count": "1"}
        assert len((await post(g, secret, n=2, headers=second)).json()["choices"]) == 2
        assert g.session(opened[1]).owed_atoms == 2 * EACH


async def test_retry_that_would_not_be_recognised_is_advised_against(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1, behaviour=failing_once(8)) as (secret, _, _):
        answer = await post(g, secret, n=2)
        assert (answer.json()["charged"], answer.json()["retryable"]) == (True, False)
        assert answer.headers["x-should-retry"] == "false"
        assert "Idempotency-Key" in answer.json()["hint"]


async def test_call_whose_choices_all_fail_is_free(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1, behaviour=Node.fail) as (secret, _, opened):
        check_problem(await post(g, secret, n=2), 503, "no_node")
        session = g.session(opened[1])
        assert (session.owed_atoms, session.reserved_atoms) == (0, 0)


async def test_streamed_choice_that_fails_is_told_after_what_was_paid_for(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1, behaviour=failing_once(8)) as (secret, _, opened):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        stream = await client.chat.completions.create(**ASKED, n=2, stream=True)
        chunks = []
        with pytest.raises(APIError) as caught:
            await keep(stream, chunks)
        assert (caught.value.body["code"], caught.value.body["charged"]) == ("partly_delivered", True)
        finished = [c.choices[0].index for c in chunks if c.choices and c.choices[0].finish_reason]
        assert finished == [0]
        assert chunks[-1].usage.model_extra["cost_details"]["atoms"] == str(EACH)
        assert chunks[-1].receipt["fields"]["amount"] == str(EACH)
        assert g.session(opened[1]).owed_atoms == EACH


async def test_stream_whose_text_fell_apart_still_says_what_it_cost(tmp_path):
    async def half(node, frame):
        await node.idle(frame)
        await node.deliver(frame, status=0, finish="internal", chunks=[text_chunk("Hel")])

    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: half}) as (secret, nodes, _):
        nodes[2].text = ("Good day",)
        answer = await g.http.post(
            "/v1/chat/completions", json=chat_body(stream=True), headers=bearer(secret)
        )
        lines = [line.removeprefix("data: ") for line in answer.text.strip().split("\n\n")]
        usage, problem = json.loads(lines[-3]), json.loads(lines[-2])
        assert usage["usage"]["cost_details"]["atoms"] == usage["receipt"]["fields"]["amount"] == "17"
        assert (problem["code"], problem["charged"], problem["retryable"]) == ("stream_diverged", True, False)


@pytest.mark.parametrize("n", [0, 33])
async def test_number_of_choices_has_bounds(tmp_path, n):
    async with gateway(tmp_path) as g, market(g, 1) as (secret, _, _):
        assert check_problem(await post(g, secret, n=n), 422, "invalid_request")["error"]["param"] == "n"


async def test_stock_client_raises_what_the_others_cost(tmp_path):
    async with gateway(tmp_path) as g, market(g, 1, behaviour=failing_once(8)) as (secret, _, _):
        client = AsyncOpenAI(base_url=f"{g.url}/v1", api_key=secret, max_retries=0)
        with pytest.raises(APIStatusError) as caught:
            await client.chat.completions.create(**ASKED, n=2)
        assert (caught.value.code, caught.value.body["charged"]) == ("partly_delivered", True)

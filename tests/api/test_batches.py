"""Batches over HTTP, through the stock client: taken in only where all of their lines can be paid."""

from __future__ import annotations

import httpx2
import pytest
from openai import APIStatusError, NotFoundError

from marketplace.api.app import create_app
from marketplace.api.routes.system import Health
from marketplace.batches.step import Limits
from marketplace.keeper.batches import BatchRunner
from tests.api.test_requests import check_problem
from tests.batches.support import (
    CHAT,
    EMBED,
    chat_line,
    client_of,
    embed_line,
    finished,
    jsonl,
    lines_of,
    started,
)
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, funded

# A line of `chat_line` at most: 10 for the job, 92 bytes in at 1, 16 tokens out at 2.
MINUTE_MS = 60_000


async def file_of(client, *lines):
    return (await client.files.create(file=("calls.jsonl", jsonl(lines)), purpose="batch")).id


async def post(g, secret, **body):
    headers = bearer(secret) | body.pop("headers", {})
    return await g.http.post("/v1/batches", json={"completion_window": "24h"} | body, headers=headers)


async def ceiling_of(g, secret):
    """The most one line of `chat_line` can cost, as a quote says."""
    body = {"model": "tiny", "messages": chat_line(1)["body"]["messages"], "max_tokens": 16}
    quotes = (await g.http.post("/v1/quotes", json=body)).json()["quotes"]
    return int(quotes[0]["ceiling_atoms"])


async def test_batch_says_before_it_begins_what_all_its_lines_can_cost(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        client, one = client_of(g, secret), await ceiling_of(g, secret)
        batch = await started(client, [chat_line(i) for i in range(3)], metadata={"a": "b"})
        assert batch.id.startswith("batch_")
        assert (batch.status, batch.endpoint, batch.completion_window) == ("validating", CHAT, "24h")
        assert batch.request_counts.model_dump() == {"total": 3, "completed": 0, "failed": 0}
        assert batch.metadata == {"a": "b"}
        assert batch.expires_at == batch.created_at + 86_400
        more = batch.model_extra
        assert (more["ceiling_atoms"], more["ceiling"]) == (str(3 * one), f"{3 * one / 1e6:.6f}".rstrip("0"))
        assert (batch.usage.model_extra["cost"], more["max_cost_atoms"]) == (0, None)
        assert (batch.output_file_id, batch.error_file_id, batch.errors) == (None, None, None)
        assert await client.batches.retrieve(batch.id) == batch
        # Nothing is set aside yet, and nothing was ordered.
        assert g.session(opened[1]).reserved_atoms == 0
        assert nodes[1].orders.empty()


@pytest.mark.parametrize("where", ["metadata", "body"])
async def test_batch_above_its_max_cost_is_refused_and_one_at_it_is_not(tmp_path, where):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        client, most = client_of(g, secret), 3 * await ceiling_of(g, secret)
        lines = [chat_line(i) for i in range(3)]

        def limit(atoms):
            text = f"{atoms / 1e6:.6f}"
            return (
                {"metadata": {"max_cost": text}}
                if where == "metadata"
                else {"extra_body": {"max_cost": text}}
            )

        with pytest.raises(APIStatusError) as refused:
            await started(client, lines, **limit(most - 1))
        assert (refused.value.status_code, refused.value.code) == (402, "price_above_max")
        assert (refused.value.body["charged"], (await client.batches.list()).data) == (False, [])
        # Whoever asks with a max_cost of 0 is told the price, and orders nothing.
        with pytest.raises(APIStatusError) as priced:
            await started(client, lines, **limit(0))
        assert f"may cost {most} atoms" in priced.value.message
        batch = await started(client, lines, **limit(most))
        assert batch.model_extra["max_cost_atoms"] == str(most)


async def test_sessions_must_carry_all_lines_and_those_of_other_batches(tmp_path):
    async with gateway(tmp_path) as g:
        secret, address = await g.new_key()
        signer = g.put_node(1)
        async with Node(g, 1, signer) as node:
            client, one = client_of(g, secret), await ceiling_of(g, secret)

            async def refusal(lines):
                with pytest.raises(APIStatusError) as refused:
                    await started(client, [chat_line(i) for i in range(lines)])
                assert refused.value.status_code == 402
                return refused.value.code

            assert await refusal(1) == "no_session"
            g.put_session(address, 1, 5 * one)
            assert await refusal(6) == "session_underfunded"
            assert ((await client.batches.list()).data, node.orders.empty()) == ([], True)
            batch = await started(client, [chat_line(i) for i in range(3)])
            assert await refusal(3) == "session_underfunded"
            await started(client, [chat_line(i) for i in range(2)])
            assert await refusal(1) == "session_underfunded"
            await finished(client, batch.id, BatchRunner(g.market), [node])
            # What was not used of it can be promised again.
            await started(client, [chat_line(1)])


async def test_line_that_cannot_be_run_fails_alone_and_costs_nothing(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        client, runner = client_of(g, secret), BatchRunner(g.market)
        lines = [
            chat_line(1),
            chat_line(2, model="gpt-9"),
            chat_line(3, max_cost="0.000001"),
            chat_line(4, stream=True),
            chat_line(5, max_tokens=0),
            chat_line(6, node=9),
            chat_line(7, max_cost="a lot"),
            chat_line(8, model="mini"),
        ]
        batch = await started(client, lines)
        assert batch.request_counts.failed == 7
        done = await finished(client, batch.id, runner, [nodes[1]])
        assert (done.status, done.request_counts.completed) == ("completed", 1)
        errors = {line["custom_id"]: line for line in await lines_of(client, done.error_file_id)}
        codes = {
            "call-2": (404, "unknown_model"),
            "call-3": (402, "price_above_max"),
            "call-4": (422, "unsupported"),
            "call-5": (422, "invalid_request"),
            "call-6": (404, "unknown_node"),
            "call-7": (422, "invalid_request"),
            "call-8": (422, "unsupported"),
        }
        found = {
            name: (line["response"]["status_code"], line["error"]["code"]) for name, line in errors.items()
        }
        assert found == codes
        assert all(line["response"]["body"]["charged"] is False for line in errors.values())
        assert g.session(opened[1]).owed_atoms == 19


async def test_batch_without_a_line_that_can_be_run_fails_and_says_why(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client = client_of(g, secret)
        batch = await started(client, [chat_line(1, model="gpt-9"), chat_line(2, max_tokens=0)])
        done = await finished(client, batch.id, BatchRunner(g.market))
        assert (done.status, done.failed_at is None, done.output_file_id) == ("failed", False, None)
        told = [(error.line, error.code, error.param) for error in done.errors.data]
        assert told == [(1, "unknown_model", None), (2, "invalid_request", "max_tokens")]
        assert len(await lines_of(client, done.error_file_id)) == 2
        assert nodes[1].orders.empty()


async def test_same_call_again_is_the_same_batch(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        client = client_of(g, secret)
        call = {"input_file_id": await file_of(client, chat_line(1)), "endpoint": CHAT}
        named, retried = {"idempotency-key": "mine"}, {"x-stainless-retry-count": "1"}
        first = (await post(g, secret, **call, headers=named)).json()
        assert (await post(g, secret, **call, headers=named)).json()["id"] == first["id"]
        other = await post(g, secret, **call, metadata={"a": "b"}, headers=named)
        assert check_problem(other, 422, "idempotency_mismatch")["batch_id"] == first["id"]
        assert (await post(g, secret, **call, headers=retried)).json()["id"] == first["id"]
        second = (await post(g, secret, **call)).json()
        assert second["id"] != first["id"]
        # Long after, a retry is a call of its own.
        g.clock.now_ms += 16 * MINUTE_MS
        third = (await post(g, secret, **call, headers=retried)).json()
        assert third["id"] not in (first["id"], second["id"])


async def test_batches_are_listed_page_by_page(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        client = client_of(g, secret)
        made = []
        for number in range(4):
            made.append((await started(client, [chat_line(number)])).id)
            g.clock.now_ms += 500 * (number % 2)
        found = [batch.id async for batch in client.batches.list(limit=1)]
        assert (found[-2:] == made[:2] or found[-2:] == made[1::-1], set(found)) == (True, set(made))
        assert len(found) == 4


async def test_another_key_sees_nothing_of_a_batch(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        batch = await started(client_of(g, secret), [chat_line(1)])
        other, _ = await g.new_key()
        stranger = client_of(g, other)
        for ask in (stranger.batches.retrieve(batch.id), stranger.batches.cancel(batch.id)):
            with pytest.raises(NotFoundError) as gone:
                await ask
            assert gone.value.code == "unknown_batch"
        assert (await stranger.batches.list()).data == []
        answer = await post(g, other, input_file_id=batch.input_file_id, endpoint=CHAT)
        check_problem(answer, 404, "unknown_file")
        assert (await client_of(g, secret).batches.retrieve(batch.id)).status == "validating"


BAD_CALLS = [
    (422, "invalid_request", {"endpoint": EMBED}, "endpoint"),
    (422, "unsupported", {"endpoint": "/v1/responses"}, "endpoint"),
    (422, "unsupported", {"endpoint": "/v1/moderations"}, "endpoint"),
    (
        422,
        "invalid_request",
        {"output_expires_after": {"anchor": "created_at", "seconds": 3599}},
        "output_expires_after.seconds",
    ),
    (
        422,
        "invalid_request",
        {"output_expires_after": {"anchor": "ended_at", "seconds": 3600}},
        "output_expires_after.anchor",
    ),
    (422, "invalid_request", {"completion_window": "1h"}, "completion_window"),
    (422, "invalid_request", {"input_file_id": "x"}, "input_file_id"),
    (404, "unknown_file", {"input_file_id": "file-aaaa"}, None),
    (422, "invalid_request", {"metadata": {"a": 1}}, "metadata.a"),
    (422, "invalid_request", {"metadata": {str(i): "" for i in range(17)}}, "metadata"),
    (422, "invalid_request", {"metadata": {"x" * 65: ""}}, "metadata"),
    (422, "invalid_request", {"metadata": {"a": "x" * 513}}, "metadata"),
    (422, "invalid_request", {"metadata": {"max_cost": "a lot"}}, "max_cost"),
    (422, "invalid_request", {"max_cost": "-1"}, "max_cost"),
]


async def test_bad_calls_change_nothing(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        file_id = await file_of(client_of(g, secret), chat_line(1))
        before = g.rows()
        for status, code, change, param in BAD_CALLS:
            answer = await post(g, secret, **({"input_file_id": file_id, "endpoint": CHAT} | change))
            assert check_problem(answer, status, code)["error"]["param"] == param, change
        answer = await g.http.post("/v1/batches", json={})
        check_problem(answer, 422, "invalid_request")
        assert g.rows() == before


async def test_output_file_is_no_input_and_is_listed_as_what_it_is(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client = client_of(g, secret)
        batch = await started(client, [embed_line(1, "a")], endpoint=EMBED)
        done = await finished(client, batch.id, BatchRunner(g.market), [nodes[1]])
        (made,) = (await client.files.list(purpose="batch_output")).data
        assert (made.id, made.filename) == (done.output_file_id, f"{batch.id}_output.jsonl")
        assert made.bytes == len((await client.files.content(made.id)).content)
        answer = await post(g, secret, input_file_id=made.id, endpoint=CHAT)
        assert check_problem(answer, 422, "invalid_request")["error"]["param"] == "input_file_id"
        await client.files.delete(made.id)
        await client.files.delete(batch.input_file_id)
        assert (await client.batches.retrieve(batch.id)).status == "completed"


async def test_key_may_have_a_few_batches_at_a_time(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, limits = client_of(g, secret), Limits(most_unfinished=2)
        file_id = await file_of(client, chat_line(1))
        health = Health(checks=list, lag_blocks=lambda: 0)
        app = create_app(g.market, health, max_body_bytes=1_000, limits=limits)
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as small:
            call = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
            ids = [
                (await small.post("/v1/batches", json=call, headers=bearer(secret))).json()["id"]
                for _ in "ab"
            ]
            check_problem(
                await small.post("/v1/batches", json=call, headers=bearer(secret)), 429, "rate_limited"
            )
            await finished(client, ids[0], BatchRunner(g.market), [nodes[1]])
            assert (await small.post("/v1/batches", json=call, headers=bearer(secret))).status_code == 200

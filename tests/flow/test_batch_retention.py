"""What batch files hold ends with the jobs it came from, and with the time it was to be kept."""

from __future__ import annotations

import json

import pytest
from openai import APIStatusError, NotFoundError

from marketplace.keeper.batches import BatchRunner
from marketplace.keeper.clockwork import Clockwork
from marketplace.protocol.deletion import SignedDeletion
from tests.api.test_requests import check_problem
from tests.batches.support import CHAT, chat_line, client_of, finished, lines_of, started
from tests.flow.gateway import NOW_AT, database_bytes, gateway
from tests.flow.node import bearer, funded

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HOURLY = {"anchor": "created_at", "seconds": 3_600}
SECRETS = ("the first secret", "the second secret", "the third secret")
ANSWER = ("an answer", " that is secret too")


async def secret_batch(g, secret, nodes, **more):
    """A finished batch of three secrets, answered with one more."""
    nodes[1].text = ANSWER
    client = client_of(g, secret)
    batch = await started(client, [chat_line(i, text) for i, text in enumerate(SECRETS)], **more)
    return client, await finished(client, batch.id, BatchRunner(g.market), [nodes[1]])


async def job_ids(client, batch):
    return [line["response"]["body"]["job_id"] for line in await lines_of(client, batch.output_file_id)]


def raw(tmp_path):
    return database_bytes(tmp_path)


def holds_any(tmp_path):
    """What of the requests and answers is still anywhere in the database."""
    return [text for text in (*SECRETS, *ANSWER) if text.encode() in raw(tmp_path)]


async def test_file_ends_when_its_sender_said_and_not_before(tmp_path):
    async with gateway(tmp_path) as g:
        client = client_of(g, (await g.new_key())[0])
        data = json.dumps(chat_line(1, SECRETS[0])).encode()
        short = await client.files.create(file=("a", data), purpose="batch", expires_after=HOURLY)
        usual = await client.files.create(file=("b", data), purpose="batch")
        assert short.expires_at == short.created_at + 3_600
        assert usual.expires_at == usual.created_at + 30 * 86_400
        g.clock.now_ms += HOUR_MS - 1
        await Clockwork(g.market).forget()
        assert (await client.files.content(short.id)).content == data
        g.clock.now_ms += 1
        await Clockwork(g.market).forget()
        with pytest.raises(NotFoundError):
            await client.files.content(short.id)
        assert [file.id for file in (await client.files.list()).data] == [usual.id]


async def test_file_that_a_batch_is_going_to_read_outlives_its_time(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        g.set_session(opened[1], expires_at=NOW_AT + 86_400)
        nodes[1].valid_until += 86_400
        await nodes[1].offer()
        await nodes[1].calm()
        client = client_of(g, secret)
        data = json.dumps(chat_line(1)).encode()
        file = await client.files.create(file=("a", data), purpose="batch", expires_after=HOURLY)
        batch = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        g.clock.now_ms += HOUR_MS
        await Clockwork(g.market).forget()
        assert (
            await finished(client, batch.id, BatchRunner(g.market), [nodes[1]])
        ).request_counts.completed == 1
        await Clockwork(g.market).forget()
        with pytest.raises(NotFoundError):
            await client.files.retrieve(file.id)


async def test_results_and_the_content_of_their_jobs_end_together_with_a_signed_record(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, batch = await secret_batch(g, secret, nodes, extra_body={"output_expires_after": HOURLY})
        file = await client.files.retrieve(batch.output_file_id)
        assert file.expires_at == file.created_at + 3_600
        jobs = await job_ids(client, batch)
        g.clock.now_ms += HOUR_MS - 1
        await Clockwork(g.market).forget()
        assert await job_ids(client, batch) == jobs
        g.clock.now_ms += 1
        await Clockwork(g.market).forget()
        with pytest.raises(NotFoundError):
            await client.files.content(batch.output_file_id)
        for job_id in jobs:
            view = (await g.http.get(f"/v1/jobs/{job_id}")).json()
            found = SignedDeletion.from_json(view)
            assert (found.deletion.reason, found.deletion.job_id) == ("expired", job_id)
            assert (view["result"], view["cost_atoms"]) == (None, "19")
        assert not holds_any(tmp_path)
        assert (await client.batches.retrieve(batch.id)).request_counts.completed == 3


async def test_results_outlive_the_usual_time_of_a_job(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, batch = await secret_batch(g, secret, nodes)
        assert len(holds_any(tmp_path)) == 5
        g.clock.now_ms += 29 * DAY_MS
        await Clockwork(g.market).forget()
        assert len(await job_ids(client, batch)) == 3
        g.clock.now_ms += DAY_MS
        await Clockwork(g.market).forget()
        assert not holds_any(tmp_path)


async def test_deleted_job_leaves_nothing_in_the_files_of_its_batch_but_its_name(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, batch = await secret_batch(g, secret, nodes)
        jobs = await job_ids(client, batch)
        assert SECRETS[1].encode() in raw(tmp_path)
        answer = (await g.http.delete(f"/v1/jobs/{jobs[1]}", headers=bearer(secret))).json()
        assert SignedDeletion.from_json(answer).deletion.reason == "asked"
        assert SECRETS[1].encode() not in raw(tmp_path)
        first, gone, third = await lines_of(client, batch.output_file_id)
        assert gone["custom_id"] == "call-1"
        assert (gone["error"]["code"], gone["error"]["charged"]) == ("content_deleted", True)
        assert gone["response"]["body"]["job_id"] == jobs[1]
        assert [line["response"]["body"]["job_id"] for line in (first, third)] == [jobs[0], jobs[2]]
        sent = (await client.files.content(batch.input_file_id)).content.split(b"\n")
        assert (SECRETS[0].encode() in sent[0], sent[1], SECRETS[2].encode() in sent[2]) == (True, b"", True)
        for file_id in (batch.output_file_id, batch.input_file_id):
            file = await client.files.retrieve(file_id)
            assert file.bytes == len((await client.files.content(file_id)).content)
        # Once more is no error, and what is left still runs.
        await g.http.delete(f"/v1/jobs/{jobs[1]}", headers=bearer(secret))
        again = await client.batches.create(
            input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
        )
        done = await finished(client, again.id, BatchRunner(g.market), [nodes[1]])
        assert (done.request_counts.total, done.request_counts.completed) == (2, 2)


async def test_job_whose_request_another_batch_is_going_to_read_is_not_deleted_yet(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        client, batch = await secret_batch(g, secret, nodes)
        (job_id, *_) = await job_ids(client, batch)
        again = await client.batches.create(
            input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"
        )
        before = g.rows()
        refused = await g.http.delete(f"/v1/jobs/{job_id}", headers=bearer(secret))
        assert again.id in check_problem(refused, 409, "file_in_use")["detail"]
        assert g.rows() == before
        await client.batches.cancel(again.id)
        await finished(client, again.id, BatchRunner(g.market), [nodes[1]])
        assert (await g.http.delete(f"/v1/jobs/{job_id}", headers=bearer(secret))).status_code == 200


async def test_longer_than_this_gateway_keeps_is_refused(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        g.market.terms = type(g.market.terms)(most_keep_ms=2 * HOUR_MS)
        client = client_of(g, secret)
        day = {"anchor": "created_at", "seconds": 86_400}
        with pytest.raises(APIStatusError) as caught:
            await client.files.create(file=("a", b"{}"), purpose="batch", expires_after=day)
        assert "kept 2h at most" in caught.value.message
        file = await client.files.create(
            file=("a", json.dumps(chat_line(1)).encode()), purpose="batch", expires_after=HOURLY
        )
        with pytest.raises(APIStatusError) as caught:
            await client.batches.create(
                input_file_id=file.id, endpoint=CHAT, completion_window="24h",
                extra_body={"output_expires_after": day},
            )  # fmt: skip
        assert caught.value.param == "output_expires_after"

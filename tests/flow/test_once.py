"""One logical call is one job and one charge, whatever retries; and every error says what was charged."""

from __future__ import annotations

import asyncio
import json

import pytest

from marketplace.dispatch import once
from marketplace.funding.receivers import identifier_of
from marketplace.openai import answers
from marketplace.protocol import wire
from marketplace.protocol.payloads import finish_chunk, text_chunk
from marketplace.store import jobs
from marketplace.store.tables import ChainEventRow
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded

CHAT = "/v1/chat/completions"
DAY_MS = 86_400_000
COST = 19


def named(secret, name="mine"):
    return bearer(secret) | {"idempotency-key": name}


def retried(secret, count):
    return bearer(secret) | {"x-stainless-retry-count": str(count)}


def set_job(g, job_id, **columns):
    with g.store.transaction() as tx:
        row = jobs.find(tx, job_id)
        for name, value in columns.items():
            setattr(row, name, value)


async def test_same_key_and_body_give_the_same_bytes_also_after_settlement(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        first = await g.http.post(CHAT, json=chat_body(), headers=named(secret))
        assert "idempotency-replayed" not in first.headers
        again = await g.http.post(CHAT, json=chat_body(), headers=named(secret))
        settled = {"block_number": 7, "log_index": 0, "block_hash": "0x07", "tx_hash": "0xaa"}
        told = {"contract": "Escrow", "name": "VoucherSettled", "subject": opened[1], "args": "{}"}
        with g.store.transaction() as tx:
            tx.add(ChainEventRow(**settled, **told))
        set_job(g, first.json()["job_id"], settled_tx="0xaa")
        later = await g.http.post(CHAT, json=chat_body(), headers=named(secret))
        assert first.content == again.content == later.content
        assert again.headers["idempotency-replayed"] == later.headers["idempotency-replayed"] == "true"
        assert nodes[1].orders.qsize() == 1
        assert g.session(opened[1]).owed_atoms == COST
        receipt = (await g.http.get(f"/v1/receipts/{first.json()['receipt']['id']}")).json()
        assert receipt["settlement"]["tx_hash"] == "0xaa"


async def test_same_key_attaches_to_the_running_stream_from_its_beginning(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        body = chat_body(stream=True)
        calls = [asyncio.create_task(g.http.post(CHAT, json=body, headers=named(secret)))]
        frame = await nodes[1].orders.get()
        order = nodes[1].hash_of(frame)
        await nodes[1].send(wire.ChunkFrame(order_hash=order, index=0, body=text_chunk("Hello")))
        await nodes[1].calm()
        calls.append(asyncio.create_task(g.http.post(CHAT, json=body, headers=named(secret))))
        while len(g.market.streams.job(frame.job_id)._changed._waiters) < 2:  # noqa: ASYNC110 - no event for it
            await asyncio.sleep(0)
        await nodes[1].deliver(frame)
        first, second = await asyncio.gather(*calls)
        assert text_of(first) == text_of(second) == "Hello world"
        assert [answer.headers.get("idempotency-replayed") for answer in (first, second)] == [None, "true"]
        assert g.session(opened[1]).owed_atoms == COST


async def test_hundred_duplicates_at_once_are_one_job(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        calls = (g.http.post(CHAT, json=chat_body(), headers=named(secret)) for _ in range(100))
        found = await asyncio.gather(*calls)
        assert len({answer.content for answer in found}) == 1
        assert sorted(answer.headers.get("idempotency-replayed", "") for answer in found) == [
            "",
            *["true"] * 99,
        ]
        assert nodes[1].orders.qsize() == 1
        assert g.session(opened[1]).owed_atoms == COST


async def test_same_key_with_another_body_is_refused_and_changes_nothing(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        first = await g.http.post(CHAT, json=chat_body(), headers=named(secret))
        await nodes[1].expect(wire.VoucherFrame)
        await nodes[1].calm()
        before = g.rows()
        other = await g.http.post(CHAT, json=chat_body(max_tokens=17), headers=named(secret))
        told = other.json()
        assert (other.status_code, told["code"], told["charged"]) == (422, "idempotency_mismatch", False)
        assert (told["job_id"], other.headers["x-should-retry"]) == (first.json()["job_id"], "false")
        assert g.rows() == before


async def test_same_name_of_two_keys_is_two_calls(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        other, address = await g.new_key()
        g.put_session(address, 1)
        answers_ = [await g.http.post(CHAT, json=chat_body(), headers=named(who)) for who in (secret, other)]
        assert len({answer.json()["job_id"] for answer in answers_}) == 2


@pytest.mark.parametrize("name", ["", "a" * 256, "tab\there"])
async def test_unreadable_idempotency_key_is_refused(tmp_path, name):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        answer = await g.http.post(CHAT, json=chat_body(), headers=named(secret, name))
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Idempotency-Key")
        assert nodes[1].orders.empty()


async def test_name_is_good_for_a_day(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        first = (await g.http.post(CHAT, json=chat_body(), headers=named(secret))).json()["job_id"]
        g.set_session(opened[1], expires_at=g.clock() // 1000 + 3 * DAY_MS)
        set_job(g, first, created_at_ms=g.clock() - DAY_MS)
        same = await g.http.post(CHAT, json=chat_body(), headers=named(secret))
        assert same.json()["job_id"] == first
        set_job(g, first, created_at_ms=g.clock() - DAY_MS - 1)
        asked = await g.http.get("/v1/jobs?idempotency_key=mine", headers=bearer(secret))
        assert asked.json()["data"] == []
        later = await g.http.post(CHAT, json=chat_body(), headers=named(secret))
        assert later.json()["job_id"] != first
        set_job(g, later.json()["job_id"], created_at_ms=g.clock() - DAY_MS - 1)
        assert [await g.market.write(lambda tx: once.forget(tx, g.clock())) for _ in range(2)] == [1, 0]


async def test_call_can_be_asked_for_by_its_idempotency_key(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        made = (await g.http.post(CHAT, json=chat_body(), headers=named(secret))).json()
        asked = await g.http.get("/v1/jobs?idempotency_key=mine", headers=bearer(secret))
        (job,) = asked.json()["data"]
        assert (job["job_id"], job["charged"], job["result"]["text"]) == (made["job_id"], True, "Hello world")
        other, _ = await g.new_key()
        for who, name in ((other, "mine"), (secret, "yours")):
            nothing = await g.http.get(f"/v1/jobs?idempotency_key={name}", headers=bearer(who))
            assert nothing.json()["data"] == []


async def test_retry_of_a_call_that_failed_uncharged_is_ordered_anew(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, opened):
        earlier = await g.http.post(CHAT, json=chat_body(), headers=retried(secret, 0))
        nodes[1].behaviour = Node.refuse
        g.clock.now_ms += 1
        failed = await g.http.post(CHAT, json=chat_body(), headers=retried(secret, 0))
        assert (failed.status_code, failed.json()["charged"]) == (503, False)
        nodes[1].behaviour = Node.work
        again = await g.http.post(CHAT, json=chat_body(), headers=retried(secret, 1))
        assert again.status_code == 200
        assert again.json()["job_id"] not in {earlier.json()["job_id"], failed.json()["job_id"]}
        third = await g.http.post(CHAT, json=chat_body(), headers=retried(secret, 2))
        assert third.json()["job_id"] == again.json()["job_id"]
        assert g.session(opened[1]).owed_atoms == 2 * COST


async def test_equal_calls_at_once_are_two_and_their_retries_take_one_each(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        both = await asyncio.gather(
            *(g.http.post(CHAT, json=chat_body(), headers=retried(secret, 0)) for _ in range(2))
        )
        made = {answer.json()["job_id"] for answer in both}
        assert len(made) == 2
        for count in (1, 2):
            again = [
                await g.http.post(CHAT, json=chat_body(), headers=retried(secret, count)) for _ in range(2)
            ]
            assert {answer.json()["job_id"] for answer in again} == made
            assert {answer.headers["idempotency-replayed"] for answer in again} == {"true"}
        assert g.session(opened[1]).owed_atoms == 2 * COST


async def test_retry_whose_first_try_never_came_is_a_call_of_its_own(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        found = [await g.http.post(CHAT, json=chat_body(), headers=retried(secret, n)) for n in (1, 2, 1)]
        first, second, other = (answer.json()["job_id"] for answer in found)
        assert first == second != other
        assert g.session(opened[1]).owed_atoms == 2 * COST


async def test_late_retry_and_unreadable_count_are_fresh_calls(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        await g.http.post(CHAT, json=chat_body(), headers=retried(secret, 0))
        await g.http.post(CHAT, json=chat_body(), headers=retried(secret, "often"))
        g.clock.now_ms += once.RETRY_MS + g.market.terms.job_timeout_ms + 1
        await g.http.post(CHAT, json=chat_body(), headers=retried(secret, 1))
        assert g.session(opened[1]).owed_atoms == 3 * COST


def test_names_of_payments_and_of_headers_never_meet():
    assert identifier_of("0xa", "b") == identifier_of("0xa", "b")
    pairs = [("0xa", "b"), ("0xb", "b"), ("0xa", "c")]
    names = {make(*pair) for make in (identifier_of, once.idempotency_name) for pair in pairs}
    assert len(names) == 6


def test_same_body_at_another_route_is_another_call():
    assert once.fingerprint("/v1/classify", b"{}") != once.fingerprint("/v1/rerank", b"{}")


# ------------------------------------------------------------------------------- what errors say of charges


def broken(*_):
    raise RuntimeError("our defect")


async def test_defect_after_the_charge_says_charged_and_names_the_job(tmp_path, monkeypatch):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        with monkeypatch.context() as patched:
            patched.setattr(answers, "chat_completion", broken)
            told = await g.http.post(CHAT, json=chat_body(), headers=named(secret))
        body = told.json()
        assert (told.status_code, body["code"], body["charged"], body["retryable"]) == (
            500,
            "internal",
            True,
            False,
        )
        assert told.headers["x-should-retry"] == "false"
        job = (await g.http.get(f"/v1/jobs/{body['job_id']}")).json()
        assert (job["charged"], job["result"]["text"]) == (True, "Hello world")
        again = await g.http.post(CHAT, json=chat_body(), headers=named(secret))
        assert again.json()["job_id"] == body["job_id"]


async def test_call_is_never_called_free_where_nobody_can_tell(tmp_path, monkeypatch):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        nodes[1].behaviour = Node.idle
        call = asyncio.create_task(g.http.post(CHAT, json=chat_body(), headers=bearer(secret)))
        frame = await nodes[1].orders.get()

        async def unreadable(work):
            raise RuntimeError("no database")

        monkeypatch.setattr(g.market, "read", unreadable)
        await nodes[1].deliver(frame)
        told = (await call).json()
        assert (told["code"], told["charged"], told["job_id"]) == ("internal", True, frame.job_id)


async def test_call_sent_away_by_a_restart_is_pending_and_not_charged_yet(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        call = asyncio.create_task(g.http.post(CHAT, json=chat_body(), headers=bearer(secret)))
        frame = await nodes[1].orders.get()
        g.market.streams.end_all()
        told = await call
        body = told.json()
        assert (told.status_code, body["code"], body["charged"]) == (503, "not_ready", False)
        assert (body["outcome"], body["job_id"]) == ("pending", frame.job_id)
        assert "same call again" in body["hint"]
        assert (body["retryable"], told.headers["retry-after"]) == (True, "1")


async def test_refund_by_the_court_is_told(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        made = (await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))).json()["job_id"]
        set_job(g, made, phase="refunded", end_reason="court_refunded")
        job = (await g.http.get(f"/v1/jobs/{made}")).json()
        assert (job["charged"], job["cost_atoms"]) == ("refunded", "0")


async def test_broken_off_stream_says_charged_and_where_the_answer_is(tmp_path):
    async def half_then_fail(node, frame):
        await node.idle(frame)
        await node.deliver(frame, status=0, finish="internal", chunks=[text_chunk("Hel")])

    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: half_then_fail}) as (secret, nodes, _):
        nodes[2].text = ("Good day",)
        answer = await g.http.post(CHAT, json=chat_body(stream=True), headers=bearer(secret))
        problem = events_of(answer)[-1]
        assert (problem["code"], problem["charged"], problem["retryable"]) == ("stream_diverged", True, False)
        assert "Nothing was charged" not in problem["error"]["message"]
        assert problem["job_id"] == answer.headers["x-job-id"]


async def test_free_answer_is_not_called_charged(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        nodes[1].price = (0, 0, 0)
        await nodes[1].offer()
        await nodes[1].calm()
        call = asyncio.create_task(g.http.post(CHAT, json=chat_body(), headers=bearer(secret)))
        await nodes[1].deliver(await nodes[1].orders.get(), chunks=[text_chunk("free"), finish_chunk("stop")])
        job_id = (await call).json()["job_id"]
        assert (await g.http.get(f"/v1/jobs/{job_id}")).json()["charged"] is False


def events_of(answer):
    lines = [line.removeprefix("data: ") for line in answer.text.strip().split("\n\n")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(answer):
    chunks = [event["choices"][0] for event in events_of(answer) if event.get("choices")]
    return "".join(choice["delta"].get("content") or "" for choice in chunks)

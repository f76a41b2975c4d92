"""Content goes when its buyer says so, or its time is over; money, hashes and a signed record stay."""

from __future__ import annotations

import asyncio
import json

from marketplace.dispatch.terms import Terms
from marketplace.keeper import clockwork
from marketplace.keeper.clockwork import Clockwork
from marketplace.protocol import wire
from marketplace.protocol.deletion import SignedDeletion
from marketplace.protocol.messages import Receipt
from tests.api.test_requests import check_problem
from tests.flow.gateway import Clock, database_bytes, gateway
from tests.flow.node import Node, bearer, chat_body, funded

PROMPT = "A secret that nobody else shall read"
HOUR_MS = 3_600_000


def secret_chat(**changes):
    return chat_body(messages=[{"role": "user", "content": PROMPT}]) | changes


async def chat(g, secret, body=None, **headers):
    answer = await g.http.post(
        "/v1/chat/completions", json=body or secret_chat(), headers=bearer(secret) | headers
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def delete(g, secret, job_id):
    return await g.http.delete(f"/v1/jobs/{job_id}", headers=bearer(secret))


async def view(g, job_id):
    return (await g.http.get(f"/v1/jobs/{job_id}")).json()


async def test_what_was_deleted_is_in_no_byte_of_the_database_and_its_money_is(tmp_path):
    async def say(node, frame):
        node.text = ("An answer", " that is secret too")
        await node.work(frame)

    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: say}) as (secret, _, opened):
        made = await chat(g, secret)
        job_id = made["job_id"]
        before = await view(g, job_id)
        raw = database_bytes(tmp_path)
        assert PROMPT.encode() in raw
        assert b"An answer" in raw
        salt = bytes.fromhex(made["receipt"]["salt"][2:])
        assert salt in raw
        answer = (await delete(g, secret, job_id)).json()
        assert (answer["deleted"], answer["waives_dispute"]) == (True, True)
        assert "no longer be disputed" in answer["note"]
        raw = database_bytes(tmp_path)
        assert PROMPT.encode() not in raw
        assert b"An answer" not in raw
        assert salt not in raw
        after = await view(g, job_id)
        assert after["result"] is None
        for name in ("phase", "end_reason", "charged", "cost_atoms", "receipt_id", "timeline", "sentence"):
            assert after[name] == before[name], name
        kept = (await g.http.get(f"/v1/sessions/{opened[1]}/receipts")).json()["data"][0]
        signed = Receipt.decode(bytes.fromhex(kept["message"][2:]))
        assert signed.amount_atoms == int(after["cost_atoms"]) == 19
        rows = (await g.http.get("/v1/receipts", headers=bearer(secret))).json()["data"]
        assert [row["charged_atoms"] for row in rows] == ["19"]


async def test_the_record_of_a_deletion_is_signed_by_the_gateway_and_no_changed_one_holds(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        made = await chat(g, secret)
        shown = (await delete(g, secret, made["job_id"])).json()["deletion"]
        assert shown == (await view(g, made["job_id"]))["deletion"]
        chain = (await g.http.get("/v1/chain")).json()
        found = SignedDeletion.from_json(shown)
        assert found.signer() == chain["gateway_signer"] == shown["signer"]
        assert found.deletion.receipt_ids == (made["receipt"]["id"],)
        assert (found.deletion.reason, found.deletion.deleted_at_ms) == ("asked", g.clock())
        other = SignedDeletion.from_json(shown | {"record": shown["record"].replace("asked", "expired")})
        assert other.signer() != chain["gateway_signer"]


async def test_everything_that_asks_for_deleted_content_is_told_so(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        key = {"idempotency-key": "one"}
        made = await chat(g, secret, **key)
        job_id, receipt_id = made["job_id"], made["receipt"]["id"]
        before = g.session(opened[1])
        await delete(g, secret, job_id)
        gone = await g.http.get(f"/v1/receipts/{receipt_id}")
        assert check_problem(gone, 410, "content_deleted")["job_id"] == job_id
        headers = bearer(secret) | key
        again = await g.http.post("/v1/chat/completions", json=secret_chat(), headers=headers)
        check_problem(again, 410, "content_deleted", charged=True)
        streamed = await g.http.post("/v1/chat/completions", json=secret_chat(stream=True), headers=headers)
        assert '"code":"content_deleted"' in streamed.text
        events = (await g.http.get(f"/v1/jobs/{job_id}/events")).text
        assert "event: problem" in events
        assert "content_deleted" in events
        assert (await g.http.get("/v1/jobs", headers=bearer(secret))).json()["data"][0]["job_id"] == job_id
        assert g.session(opened[1]).owed_atoms == before.owed_atoms, "it is not charged again"


async def test_only_the_key_of_a_job_deletes_it_and_only_once_it_has_ended(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        other, _ = await g.new_key()
        calling = g.http.post("/v1/chat/completions", json=secret_chat(), headers=bearer(secret))
        running = asyncio.ensure_future(calling)
        frame = await nodes[1].orders.get()
        job_id = frame.job_id
        await nodes[1].calm()
        before = g.rows()
        check_problem(await delete(g, other, job_id), 404, "unknown_job")
        check_problem(await g.http.delete(f"/v1/jobs/{job_id}"), 401, "missing_key")
        check_problem(await delete(g, secret, "job_none"), 404, "unknown_job")
        early = check_problem(await delete(g, secret, job_id), 422, "invalid_request")
        assert "cancel it first" in early["detail"]
        assert g.rows() == before
        await nodes[1].work(frame)
        await running
        first = (await delete(g, secret, job_id)).json()
        g.clock.now_ms += 5
        assert (await delete(g, secret, job_id)).json() == first


async def test_content_goes_by_itself_when_its_time_is_over(tmp_path):
    clock = Clock()
    async with gateway(tmp_path, clock=clock, terms=Terms(keep_ms=2 * HOUR_MS)) as g:
        async with funded(g, 1) as (secret, _, _):
            usual = (await chat(g, secret))["job_id"]
            short = (await chat(g, secret, **{"x-watt-retain": "1h"}))["job_id"]
            field = (await chat(g, secret, secret_chat(retain="3h")))["job_id"]
            assert (await view(g, short))["keep_until_ms"] == clock() + HOUR_MS
            seen = []
            for _ in range(4):
                await Clockwork(g.market).forget()
                views = [await view(g, job_id) for job_id in (short, usual, field)]
                seen.append([job["deleted_at_ms"] is None for job in views])
                clock.now_ms += HOUR_MS
        assert seen == [[True] * 3, [False, True, True], [False, False, True], [False] * 3]
        assert SignedDeletion.from_json(views[0]).deletion.reason == "expired"


async def test_a_job_that_runs_keeps_its_content_past_its_time(tmp_path):
    clock = Clock()
    terms = Terms(keep_ms=1, job_timeout_ms=HOUR_MS // 2, lease_ms=HOUR_MS)
    async with (
        gateway(tmp_path, clock=clock, terms=terms) as g,
        funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _),
    ):
        running = asyncio.ensure_future(chat(g, secret))
        frame = await nodes[1].orders.get()
        clock.now_ms += HOUR_MS // 4
        await Clockwork(g.market).forget()
        await nodes[1].work(frame)
        made = await running
        assert made["choices"][0]["message"]["content"] == "Hello world"


async def test_a_time_to_keep_that_is_none_changes_nothing(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        before = g.rows()
        for given in ("", "soon", "0h", "1", "1y", "4m", "31d", "-1h", "1h30m", "999999d"):
            headers = bearer(secret) | {"x-watt-retain": given}
            answer = await g.http.post("/v1/chat/completions", json=secret_chat(), headers=headers)
            assert check_problem(answer, 422, "invalid_request")["error"]["param"] == "retain", given
        assert g.rows() == before


async def test_a_receipt_that_comes_after_the_content_went_is_left_out_of_the_sum(tmp_path):
    clock = Clock()
    async with (
        gateway(tmp_path, clock=clock) as g,
        funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened),
    ):
        calling = g.http.post("/v1/chat/completions", json=secret_chat(), headers=bearer(secret))
        running = asyncio.ensure_future(calling)
        frame = await nodes[1].orders.get()
        clock.now_ms += 130_000
        await g.tick()
        check_problem(await running, 504, "deadline_passed")
        assert (await delete(g, secret, frame.job_id)).status_code == 200
        late = await nodes[1].deliver(frame, finished_at_ms=clock() - 20_000)
        answer = await nodes[1].expect(wire.Superseded)
        assert answer.order_hash == late.order_hash
        assert g.session(opened[1]).owed_atoms == 0


async def test_all_that_is_due_goes_in_one_turn_however_much_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(clockwork, "_FEW", 2)
    clock = Clock()
    async with (
        gateway(tmp_path, clock=clock, terms=Terms(keep_ms=HOUR_MS)) as g,
        funded(g, 1) as (secret, _, _),
    ):
        ids = [(await chat(g, secret))["job_id"] for _ in range(5)]
        clock.now_ms += HOUR_MS
        await Clockwork(g.market).forget()
        assert [(await view(g, job_id))["deleted_at_ms"] for job_id in ids] == [clock()] * 5


async def test_a_failed_call_may_be_made_again_with_its_key_though_its_content_is_gone(tmp_path):
    broken = [True]

    async def fail_first(node, frame):
        if broken:
            await node.deliver(frame, status=0, amount_atoms=0, units_out=0, chunks=[])
        else:
            await node.work(frame)

    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: fail_first}) as (secret, _, opened):
        headers = bearer(secret) | {"idempotency-key": "one"}
        failed = await g.http.post("/v1/chat/completions", json=secret_chat(), headers=headers)
        assert failed.status_code in (502, 503)
        await delete(g, secret, failed.json()["job_id"])
        broken.clear()
        await chat(g, secret, **{"idempotency-key": "one"})
        assert g.session(opened[1]).owed_atoms == 19


async def test_a_failed_job_keeps_its_reason_when_its_content_is_gone(tmp_path):
    async def fail(node, frame):
        await node.deliver(frame, status=0, amount_atoms=0, units_out=0, chunks=[])

    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: fail}) as (secret, _, _):
        answer = await g.http.post("/v1/chat/completions", json=secret_chat(), headers=bearer(secret))
        job_id = answer.json()["job_id"]
        before = await view(g, job_id)
        assert (await delete(g, secret, job_id)).status_code == 200
        after = await view(g, job_id)
        assert (after["phase"], after["end_reason"]) == (before["phase"], before["end_reason"])
        events = (await g.http.get(f"/v1/jobs/{job_id}/events")).text
        assert json.dumps(answer.json()["code"]) in events

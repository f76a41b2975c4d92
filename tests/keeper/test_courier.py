"""Webhooks end to end in one process: jobs move, messages leave, receivers fail, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

from marketplace.dispatch.terms import Terms
from marketplace.hooks import rules, step
from marketplace.hooks.post import Post
from marketplace.keeper.clockwork import Clockwork
from marketplace.keeper.courier import Courier
from marketplace.protocol.webhooks import Event
from marketplace.store import jobs, sessions, webhooks
from marketplace.store.tables import JobRow
from tests.flow.gateway import Clock, gateway
from tests.flow.node import bearer, chat_body, funded
from tests.flow.receiver import receiver
from tests.settlement.test_step import Chain

LOOPBACK = Terms(webhook_allow_loopback=True)
DAY_MS = 24 * 3_600_000


@contextlib.asynccontextmanager
async def market(path, *, clock=None, answers=(), behaviours=None, atoms=10_000_000):
    """A gateway with one node, a funded key, and a receiver that its webhook may point to."""
    async with (
        receiver(*answers) as there,
        gateway(path, clock=clock, terms=LOOPBACK) as g,
        funded(g, 1, behaviours=behaviours, atoms=atoms) as (secret, _, opened),
    ):
        yield g, there, secret, opened[1]


async def hook(g, there, secret, **body):
    made = await g.http.post("/v1/webhooks", json={"url": there.url} | body, headers=bearer(secret))
    assert made.status_code == 201, made.text
    return made.json()


async def chat(g, secret, **changes):
    return await g.http.post("/v1/chat/completions", json=chat_body(**changes), headers=bearer(secret))


async def turn(g, courier=None):
    courier = courier or Courier(g.market)
    await courier.step()
    await courier.idle()


async def deliveries(g, secret, made, query=""):
    url = f"/v1/webhooks/{made['id']}/deliveries{query}"
    return (await g.http.get(url, headers=bearer(secret))).json()


async def test_a_job_is_told_from_its_order_to_its_payment_signed_and_without_its_content(tmp_path):
    async with market(tmp_path) as (g, there, secret, session):
        made = await hook(g, there, secret)
        answer = (await chat(g, secret)).json()
        await turn(g)
        chain = Chain(g, session)
        chain.add("VoucherSettled", "0xaa", throughSeq=1, paid=19)
        await turn(g)
        told = [taken.json for taken in there.taken]
        assert [message["type"] for message in told] == ["job.ordered", "job.delivered", "job.settled"]
        assert {message["data"]["job_id"] for message in told} == {answer["job_id"]}
        assert [message["data"]["charged"] for message in told] == [False, True, True]
        cost = answer["usage"]["cost_details"]["atoms"]
        assert told[1]["data"]["cost_atoms"] == told[2]["data"]["cost_atoms"] == str(cost)
        assert told[1]["data"]["receipt_id"] == answer["receipt"]["id"]
        assert told[2]["data"]["settled_tx"] == "0xaa"
        assert told[0]["timestamp"] == "2027-01-15T08:00:00.000+00:00"
        for taken in there.taken:
            assert b"Hello" not in taken.body
            headers = taken.headers
            at = int(headers["webhook-timestamp"])
            told_at = datetime.fromtimestamp(at, UTC)
            signed = Webhook(made["secret"]).sign(headers["webhook-id"], told_at, taken.body.decode())
            assert headers["webhook-signature"] == signed
        assert len({taken.headers["webhook-id"] for taken in there.taken}) == 3


async def test_the_same_payment_mined_again_is_told_once(tmp_path):
    async with market(tmp_path) as (g, there, secret, session):
        await hook(g, there, secret, events=["job.settled"])
        await chat(g, secret)
        chain = Chain(g, session)
        chain.add("VoucherSettled", "0xaa", throughSeq=1, paid=19)
        chain.undo()
        chain.add("VoucherSettled", "0xaa", throughSeq=1, paid=19)
        chain.undo()
        chain.add("VoucherSettled", "0xbb", throughSeq=1, paid=19)
        await turn(g)
        assert [taken.json["data"]["settled_tx"] for taken in there.taken] == ["0xaa", "0xbb"]


async def test_a_job_that_failed_or_was_refunded_is_told_as_free(tmp_path):
    async with market(tmp_path) as (g, there, secret, session):
        await hook(g, there, secret, events=["job.failed", "job.refunded"])
        await chat(g, secret)
        g.set_session(session, closed=True)
        await Clockwork(g.market).sweep()
        await turn(g)
        (refunded,) = there.taken
        assert refunded.json["type"] == "job.refunded"
        data = refunded.json["data"]
        assert (data["cost_atoms"], data["charged"], data["end_reason"]) == ("0", False, "session_expired")


async def test_a_failed_job_is_told_once_with_its_reason(tmp_path):
    async def fail(node, frame):
        await node.deliver(frame, status=0, amount_atoms=0, units_out=0, chunks=[])

    async with market(tmp_path, behaviours={1: fail}) as (g, there, secret, _):
        await hook(g, there, secret, events=["job.failed"])
        problem = (await chat(g, secret)).json()
        await turn(g)
        (told,) = there.taken
        assert told.json["data"]["job_id"] == problem["job_id"]
        assert told.json["data"]["charged"] is False
        assert told.json["data"]["end_reason"] in ("node_failed", "no_node_left")


async def test_a_budget_is_warned_of_once_when_a_fifth_is_left_and_again_after_a_top_up(tmp_path):
    async with market(tmp_path, atoms=60) as (g, there, secret, session):
        await hook(g, there, secret, events=["budget.warning"])
        for owed, count in ((47, 0), (48, 1), (50, 1)):
            g.set_session(session, owed_atoms=owed - 1)
            with g.store.transaction() as tx:
                sessions.release(tx, session, reserved_atoms=0, owed_atoms=1)
            await turn(g)
            assert len(there.taken) == count
        assert there.taken[0].json["data"]["deposited_atoms"] == "60"
        assert there.taken[0].json["data"]["left_atoms"] == "12"
        g.set_session(session, deposited_atoms=100, owed_atoms=99)
        with g.store.transaction() as tx:
            sessions.release(tx, session, reserved_atoms=0, owed_atoms=1)
        await turn(g)
        assert [taken.json["data"]["deposited_atoms"] for taken in there.taken] == ["60", "100"]


async def test_only_what_was_asked_for_is_told_and_only_to_the_key_it_is_of(tmp_path):
    async with market(tmp_path) as (g, there, secret, _):
        await hook(g, there, secret, events=["job.delivered"])
        other, _ = await g.new_key()
        await hook(g, there, other)
        await chat(g, secret)
        await turn(g)
        assert [taken.json["type"] for taken in there.taken] == ["job.delivered"]


async def test_where_nobody_listens_nothing_is_written(tmp_path):
    async with market(tmp_path) as (g, _, secret, _):
        await chat(g, secret)
        with g.store.reading() as tx:
            assert webhooks.waiting_hooks(tx, g.clock(), 10) == []


async def test_what_is_rolled_back_is_not_told(tmp_path):
    async with market(tmp_path) as (g, there, secret, _):
        made = await hook(g, there, secret)
        job = JobRow(
            job_id="job_x",
            key=(await key_of(g, secret)),
            held=True,
            task="chat",
            model_id="",
            model_name="",
            payload=b"",
            trace_id="",
            phase="leased",
            created_at_ms=1,
            deadline_ms=2,
        )
        with contextlib.suppress(RuntimeError), g.store.transaction() as tx:
            jobs.add(tx, job)
            assert webhooks.waiting_hooks(tx, g.clock(), 10) == [made["id"]]
            raise RuntimeError
        await turn(g)
        assert there.taken == []


async def key_of(g, secret):
    return (await g.market.key_of(secret)).address


async def test_a_failed_message_is_sent_again_with_the_same_id_and_body_until_it_is_taken(tmp_path):
    clock = Clock()
    async with market(tmp_path, clock=clock, answers=[500, 302, 200]) as (g, there, secret, _):
        made = await hook(g, there, secret, events=["job.delivered"])
        await chat(g, secret)
        await turn(g)
        (waits,) = (await deliveries(g, secret, made))["data"]
        assert (waits["state"], waits["attempts"], waits["answered"]) == ("waiting", 1, 500)
        assert waits["next_at_ms"] == clock() + rules.RETRY_MS[0]
        await turn(g)
        assert len(there.taken) == 1
        for pause in rules.RETRY_MS[:2]:
            clock.now_ms += pause
            await turn(g)
        first, second, third = there.taken
        assert first.body == second.body == third.body
        assert len({taken.headers["webhook-id"] for taken in there.taken}) == 1
        assert first.headers["webhook-timestamp"] != third.headers["webhook-timestamp"]
        (taken,) = (await deliveries(g, secret, made))["data"]
        assert (taken["state"], taken["attempts"], taken["answered"]) == ("taken", 3, 200)
        assert taken["body"].encode() == first.body
        hooks = (await g.http.get("/v1/webhooks", headers=bearer(secret))).json()["data"]
        assert hooks[0]["failing_since_ms"] is None


async def test_a_receiver_that_takes_nothing_for_a_day_is_disabled_with_the_reason(tmp_path):
    clock = Clock()
    async with market(tmp_path, clock=clock, answers=[500] * 20) as (g, there, secret, _):
        made = await hook(g, there, secret, events=["job.delivered"])
        await chat(g, secret)
        await turn(g)
        for pause in rules.RETRY_MS:
            clock.now_ms += pause
            await turn(g)
        assert len(there.taken) == len(rules.RETRY_MS) + 1
        (shown,) = (await g.http.get("/v1/webhooks", headers=bearer(secret))).json()["data"]
        assert (shown["status"], shown["disabled_at_ms"]) == ("disabled", clock())
        assert shown["disabled_reason"] == "nothing was taken for 23 hours; at last it answered 500"
        (failed,) = (await deliveries(g, secret, made))["data"]
        assert failed["state"] == "failed"
        there.answers.clear()
        again = f"/v1/webhooks/{made['id']}/deliveries/{failed['id']}/redeliver"
        assert (await g.http.post(again, headers=bearer(secret))).json()["state"] == "waiting"
        await turn(g)
        assert len(there.taken) == len(rules.RETRY_MS) + 1, "disabled"
        enabled = await g.http.post(f"/v1/webhooks/{made['id']}/enable", headers=bearer(secret))
        assert (enabled.json()["status"], enabled.json()["disabled_reason"]) == ("enabled", None)
        await turn(g)
        assert there.taken[-1].body == there.taken[0].body
        assert (await deliveries(g, secret, made))["data"][0]["state"] == "taken"


async def test_a_receiver_that_is_gone_is_disabled_at_once(tmp_path):
    async with market(tmp_path, answers=[410]) as (g, there, secret, _):
        await hook(g, there, secret)
        await chat(g, secret)
        await turn(g)
        await turn(g)
        assert len(there.taken) == 1
        (shown,) = (await g.http.get("/v1/webhooks", headers=bearer(secret))).json()["data"]
        assert shown["disabled_reason"] == "the receiver says that it is gone (410)"


async def test_a_gateway_that_died_while_sending_sends_again_after_its_restart(tmp_path):
    clock = Clock()
    async with receiver() as there:
        async with gateway(tmp_path, clock=clock, terms=LOOPBACK) as g, funded(g, 1) as (secret, _, _):
            made = await hook(g, there, secret, events=["job.delivered"])
            await chat(g, secret)
            with g.store.transaction() as tx:
                lost = step.take(tx, made["id"], clock())
            assert lost is not None, "claimed, and never sent"
        async with gateway(tmp_path, clock=clock, terms=LOOPBACK) as g:
            await turn(g)
            assert there.taken == [], "it may still be under way"
            clock.now_ms += step.CLAIM_MS
            await turn(g)
            (taken,) = there.taken
            assert (taken.headers["webhook-id"], taken.body) == (lost.message_id, lost.body)


async def test_a_slow_receiver_holds_up_no_other(tmp_path):
    async with market(tmp_path) as (g, there, secret, _), receiver(None) as slow:
        await hook(g, slow, secret, events=["job.delivered"])
        await hook(g, there, secret, events=["job.delivered"])
        await chat(g, secret)
        courier = Courier(g.market)
        await courier.step()
        while not (there.taken and slow.taken):
            await courier.step()
        await chat(g, secret)
        while len(there.taken) < 2:
            await courier.step()
        assert len(slow.taken) == 1
        await courier.close()


async def test_messages_of_one_webhook_leave_in_order_in_one_round(tmp_path):
    async with market(tmp_path) as (g, there, secret, _):
        await hook(g, there, secret, events=["job.ordered", "job.delivered"])
        ids = [(await chat(g, secret)).json()["job_id"] for _ in range(3)]
        await turn(g)
        told = [(taken.json["data"]["job_id"], taken.json["type"]) for taken in there.taken]
        assert told == [(job_id, name) for job_id in ids for name in ("job.ordered", "job.delivered")]


async def test_a_message_that_moved_on_while_it_was_sent_is_left_as_it_is(tmp_path):
    async with market(tmp_path) as (g, there, secret, _):
        made = await hook(g, there, secret, events=["job.delivered"])
        await chat(g, secret)
        with g.store.transaction() as tx:
            parcel = step.take(tx, made["id"], g.clock())
        (shown,) = (await deliveries(g, secret, made))["data"]
        redeliver = f"/v1/webhooks/{made['id']}/deliveries/{shown['id']}/redeliver"
        await g.http.post(redeliver, headers=bearer(secret))
        with g.store.transaction() as tx:
            step.note(tx, parcel, step.Answer(status=200), g.clock())
        assert (await deliveries(g, secret, made))["data"][0]["state"] == "waiting"
        await turn(g)
        assert len(there.taken) == 1


async def test_messages_are_forgotten_a_week_after_they_ended(tmp_path):
    clock = Clock()
    async with market(tmp_path, clock=clock) as (g, there, secret, _):
        made = await hook(g, there, secret)
        done = (await chat(g, secret)).json()
        courier = Courier(g.market)
        await turn(g, courier)
        clock.now_ms += 7 * DAY_MS
        await courier.prune()
        assert len((await deliveries(g, secret, made))["data"]) == 2
        clock.now_ms += 1
        await courier.prune()
        assert (await deliveries(g, secret, made))["data"] == []
        with g.store.transaction() as tx:
            webhooks.tell(tx, Event.JOB_DELIVERED, done["job_id"])
        await turn(g, courier)
        assert len(there.taken) == 3
        ids = [taken.headers["webhook-id"] for taken in there.taken]
        assert len(ids) == len(set(ids)), "a number is never given twice"


async def test_a_receiver_inside_is_refused_again_at_every_sending(tmp_path):
    """A setting that was taken back, or a name that moved, holds for webhooks that are there."""
    async with market(tmp_path) as (g, there, secret, _):
        made = await hook(g, there, secret, events=["job.delivered"])
        await chat(g, secret)
        await turn(g, Courier(g.market, Post(allow_loopback=False, seconds=5)))
        (shown,) = (await deliveries(g, secret, made))["data"]
        assert (shown["problem"], there.taken) == ("the name resolves to an address that is not public", [])


async def test_pages_of_deliveries_are_stable_while_more_come(tmp_path):
    async with market(tmp_path) as (g, there, secret, _):
        made = await hook(g, there, secret)
        for _ in range(2):
            await chat(g, secret)
        await turn(g)
        first = await deliveries(g, secret, made, "?limit=3")
        assert (len(first["data"]), first["has_more"]) == (3, True)
        await chat(g, secret)
        rest = await deliveries(g, secret, made, f"?limit=3&after={first['last_id']}")
        assert (len(rest["data"]), rest["has_more"]) == (1, False)
        shown = [json.loads(row["body"])["type"] for row in first["data"] + rest["data"]]
        assert shown == ["job.delivered", "job.ordered"] * 2

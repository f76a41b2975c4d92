"""Webhooks over HTTP: who may have them, where they may point, and what is shown of them."""

from __future__ import annotations

import json

from marketplace.dispatch.terms import Terms
from marketplace.hooks import rules, step
from marketplace.keeper.courier import Courier
from tests.api.test_requests import check_problem
from tests.flow.gateway import Clock, gateway
from tests.flow.node import bearer, chat_body, funded

LOOPBACK = Terms(webhook_allow_loopback=True)
URL = "http://127.0.0.1:9/hooks"


async def add(g, secret, url=URL, **body):
    return await g.http.post("/v1/webhooks", json={"url": url} | body, headers=bearer(secret))


async def test_the_secret_is_shown_once_and_stored_nowhere(tmp_path):
    async with gateway(tmp_path, terms=LOOPBACK) as g:
        secret, _ = await g.new_key()
        made = await add(g, secret, events=["job.settled"])
        assert made.status_code == 201
        assert made.json()["secret"].startswith("whsec_")
        assert (made.json()["events"], made.json()["status"]) == (["job.settled"], "enabled")
        listed = (await g.http.get("/v1/webhooks", headers=bearer(secret))).json()
        assert [row["id"] for row in listed["data"]] == [made.json()["id"]]
        assert "secret" not in listed["data"][0]
        assert made.json()["secret"].removeprefix("whsec_") not in g.rows()
        other = (await add(g, secret)).json()
        assert other["secret"] != made.json()["secret"]


REFUSED = [
    ("webhook_refused", {"url": "http://127.0.0.1/"}, "url"),
    ("webhook_refused", {"url": "http://169.254.169.254/latest/meta-data"}, "url"),
    ("webhook_refused", {"url": "http://localhost/"}, "url"),
    ("webhook_refused", {"url": "http://[::ffff:10.0.0.1]/"}, "url"),
    ("webhook_refused", {"url": "ftp://93.184.216.34/"}, "url"),
    ("invalid_request", {"url": "https://93.184.216.34/", "events": ["job.eaten"]}, "events"),
    ("invalid_request", {"url": ""}, "url"),
    ("invalid_request", {}, "url"),
]


async def test_a_webhook_that_may_not_be_changes_nothing(tmp_path):
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()
        before = g.rows()
        for code, body, param in REFUSED:
            answer = await g.http.post("/v1/webhooks", json=body, headers=bearer(secret))
            assert check_problem(answer, 422, code)["error"]["param"] == param, body
        assert g.rows() == before


async def test_a_key_sees_and_touches_its_own_webhooks_only(tmp_path):
    async with gateway(tmp_path, terms=LOOPBACK) as g:
        mine, _ = await g.new_key()
        others, _ = await g.new_key()
        made = (await add(g, mine)).json()
        hook, message = f"/v1/webhooks/{made['id']}", f"msg_{made['id'].removeprefix('wh_')}_1"
        assert (await g.http.get("/v1/webhooks", headers=bearer(others))).json()["data"] == []
        before = g.rows()
        for method, path in [
            ("DELETE", hook),
            ("POST", hook + "/enable"),
            ("GET", hook + "/deliveries"),
            ("POST", f"{hook}/deliveries/{message}/redeliver"),
        ]:
            check_problem(await g.http.request(method, path, headers=bearer(others)), 404, "unknown_webhook")
            check_problem(await g.http.request(method, path), 401, "missing_key")
        again = f"{hook}/deliveries"
        check_problem(
            await g.http.post(f"{again}/{message}/redeliver", headers=bearer(mine)), 404, "unknown_webhook"
        )
        for name in ("nonsense", message + "0000000000"):
            answer = await g.http.post(f"{again}/{name}/redeliver", headers=bearer(mine))
            check_problem(answer, 404, "unknown_webhook")
        check_problem(await g.http.get(again + "?after=17", headers=bearer(mine)), 422, "invalid_request")
        assert g.rows() == before
        gone = await g.http.delete(hook, headers=bearer(mine))
        assert gone.json() == {"id": made["id"], "object": "webhook", "deleted": True}
        check_problem(await g.http.delete(hook, headers=bearer(mine)), 404, "unknown_webhook")


async def test_a_key_has_a_bounded_number_of_webhooks(tmp_path):
    async with gateway(tmp_path, terms=LOOPBACK) as g:
        secret, _ = await g.new_key()
        made = [await add(g, secret) for _ in range(rules.MAX_WEBHOOKS)]
        check_problem(await add(g, secret), 422, "invalid_request")
        await g.http.delete(f"/v1/webhooks/{made[0].json()['id']}", headers=bearer(secret))
        assert (await add(g, secret)).status_code == 201


async def fetch(g, secret, made, *taken):
    body = {"taken": list(taken)}
    answer = await g.http.post(f"/v1/webhooks/{made['id']}/fetch", json=body, headers=bearer(secret))
    return answer.json()


async def test_messages_without_an_address_wait_to_be_fetched_until_they_are_taken(tmp_path):
    clock = Clock()
    async with gateway(tmp_path, clock=clock) as g, funded(g, 1) as (secret, _, _):
        made = (await add(g, secret, None, events=["job.delivered"])).json()
        assert (made["url"], made["secret"][:6]) == (None, "whsec_")
        assert (await fetch(g, secret, made))["data"] == []
        for _ in range(2):
            await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        await Courier(g.market).step()
        first = (await fetch(g, secret, made))["data"]
        assert [json.loads(row["body"])["type"] for row in first] == ["job.delivered"] * 2
        assert (await fetch(g, secret, made, first[0]["id"]))["data"] == [], "the other is still claimed"
        clock.now_ms += step.CLAIM_MS
        assert (await fetch(g, secret, made))["data"] == [first[1]]
        assert (await fetch(g, secret, made, first[1]["id"]))["data"] == []
        clock.now_ms += step.CLAIM_MS
        assert (await fetch(g, secret, made))["data"] == []


async def test_only_a_webhook_without_an_address_is_fetched_from_and_by_its_key(tmp_path):
    async with gateway(tmp_path, terms=LOOPBACK) as g:
        secret, _ = await g.new_key()
        other, _ = await g.new_key()
        sent, kept = (await add(g, secret)).json(), (await add(g, secret, None)).json()
        before = g.rows()
        assert (await fetch(g, secret, sent))["code"] == "invalid_request"
        assert (await fetch(g, other, kept))["code"] == "unknown_webhook"
        assert (await fetch(g, secret, kept, "msg_x_1"))["code"] == "unknown_webhook"
        assert g.rows() == before


async def test_a_webhook_that_nobody_fetches_from_is_forgotten_after_an_hour(tmp_path):
    clock = Clock()
    async with gateway(tmp_path, clock=clock, terms=LOOPBACK) as g:
        secret, _ = await g.new_key()
        sent, kept = (await add(g, secret)).json(), (await add(g, secret, None)).json()
        for wait, there in ((step.FETCH_MS, [sent["id"], kept["id"]]), (1, [sent["id"]])):
            clock.now_ms += wait
            await Courier(g.market).prune()
            listed = (await g.http.get("/v1/webhooks", headers=bearer(secret))).json()["data"]
            assert sorted(row["id"] for row in listed) == sorted(there)

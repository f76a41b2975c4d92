"""Webhooks over HTTP: who may have them, where they may point, and what is shown of them."""

from __future__ import annotations

import pytest

from marketplace.dispatch.terms import Terms
from marketplace.hooks import rules
from tests.api.test_requests import check_problem
from tests.flow.gateway import gateway
from tests.flow.node import bearer

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


@pytest.mark.parametrize(
    ("code", "body", "param"),
    [
        ("webhook_refused", {"url": "http://127.0.0.1/"}, "url"),
        ("webhook_refused", {"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ("webhook_refused", {"url": "http://localhost/"}, "url"),
        ("webhook_refused", {"url": "http://[::ffff:10.0.0.1]/"}, "url"),
        ("webhook_refused", {"url": "ftp://93.184.216.34/"}, "url"),
        ("invalid_request", {"url": "https://93.184.216.34/", "events": ["job.eaten"]}, "events"),
        ("invalid_request", {"url": ""}, "url"),
        ("invalid_request", {}, "url"),
    ],
)
async def test_a_webhook_that_may_not_be_changes_nothing(tmp_path, code, body, param):
    async with gateway(tmp_path) as g:
        secret, _ = await g.new_key()
        before = g.rows()
        answer = await g.http.post("/v1/webhooks", json=body, headers=bearer(secret))
        assert check_problem(answer, 422, code)["error"]["param"] == param
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
        check_problem(
            await g.http.post(f"{again}/nonsense/redeliver", headers=bearer(mine)), 404, "unknown_webhook"
        )
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

"""What a bearer key may buy: models, money, time; and what its answers say is left."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

import pytest

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Visit
from marketplace.store import events, keys
from marketplace.store.events import EventFact
from tests.flow.gateway import BUYER, DOMAIN, NOW_AT, gateway
from tests.flow.node import Node, bearer, chat_body, funded
from tests.flow.sdk import sdk

CHAT = "/v1/chat/completions"
CEILING = 124  # of `chat_body`: 10 + 82 + 2 · 16
COST = 19


async def limited(g, **limits):
    """A bearer key with limits and a session with node 1."""
    made = await g.http.post("/v1/keys", json={"label": "agent"} | limits)
    assert made.status_code == 201, made.text
    g.put_session(made.json()["address"], 1, 1_000_000)
    return made.json()["api_key"], made.json()["address"]


def said(g, name, key, block):
    """The buyer says something of a key on the chain."""
    args = {"buyer": BUYER.address, "key": key, "nonce": block}
    where = {"block_number": block, "log_index": 0, "block_hash": f"0x{block}", "tx_hash": f"0x{block}"}
    fact = EventFact(contract="Escrow", name=name, subject=BUYER.address, args=args, **where)
    with g.store.transaction() as tx:
        events.add_events(tx, [fact])


@pytest.mark.parametrize(
    ("models", "status"),
    [(["tiny*"], 200), (["x", "t?ny"], 200), (["Tiny"], 403), (["mini"], 403), ([], 200)],
)
async def test_key_buys_only_models_on_its_list(tmp_path, models, status):
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _):
        secret, _ = await limited(g, models=models)
        before = g.rows()
        answer = await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))
        assert answer.status_code == status
        if status == 403:
            body = answer.json()
            assert (body["code"], body["charged"], body["error"]["param"]) == (
                "model_not_allowed",
                False,
                "model",
            )
            assert g.rows() == before
            assert nodes[1].orders.empty()


async def test_budget_is_never_exceeded_by_calls_at_once(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (_, nodes, _):
        secret, _ = await limited(g, budget="0.000380")  # three ceilings and a bit
        calls = [
            asyncio.create_task(g.http.post(CHAT, json=chat_body(), headers=bearer(secret)))
            for _ in range(12)
        ]
        frames = [await nodes[1].orders.get() for _ in range(3)]
        running = set(calls)
        while len(running) > 3:
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for frame in frames:
            await nodes[1].deliver(frame)
        found = await asyncio.gather(*calls)
        assert Counter(answer.status_code for answer in found) == {200: 3, 402: 9}
        refused = next(answer.json() for answer in found if answer.status_code == 402)
        assert (refused["code"], refused["charged"]) == ("budget_exceeded", False)
        assert f"may cost {CEILING}" in refused["detail"]
        shown = (await g.http.get("/v1/keys/me", headers=bearer(secret))).json()
        assert (shown["spent_atoms"], shown["left_atoms"]) == (str(3 * COST), str(380 - 3 * COST))


async def test_answers_say_what_is_left_and_warn_from_four_fifths_on(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (plain, _, _):
        secret, _ = await limited(g, budget="0.000170")
        first = await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))
        assert first.headers["x-watt-budget-left"] == "0.000151"
        assert first.headers["x-watt-session-left"] == "0.999981"
        assert "x-watt-budget-warning" not in first.headers
        # While it streams its whole ceiling is set aside: 170 - 19 - 124 are left.
        stream = await g.http.post(CHAT, json=chat_body(stream=True), headers=bearer(secret))
        assert stream.headers["x-watt-budget-left"] == "0.000027"
        assert stream.headers["x-watt-session-left"] == "0.999857"
        assert stream.headers["x-watt-budget-warning"] == "84 % of 0.00017 is spent"
        free = await g.http.post(CHAT, json=chat_body(), headers=bearer(plain))
        assert "x-watt-budget-left" not in free.headers
        assert free.headers["x-watt-session-left"] == "9.999981"


@pytest.mark.parametrize(("ends_in", "first"), [(86_400, "money"), (5_000, "time")])
async def test_key_says_how_long_its_money_lasts_and_what_ends_first(tmp_path, ends_in, first):
    async with gateway(tmp_path) as g, funded(g, 1):
        secret, _ = await limited(g, budget="0.000400", expires_at=NOW_AT + ends_in)

        async def lasts():
            shown = (await g.http.get("/v1/keys/me", headers=bearer(secret))).json()
            assert shown["spent_last_day_atoms"] == shown["forecast"]["spent_last_day_atoms"]
            return shown["forecast"]

        for bought in range(3):
            assert ((await lasts())["purchases_last_day"], (await lasts())["empty_at"]) == (bought, None)
            await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))
            g.clock.now_ms += 600_000
        found = await lasts()
        # Three times 19 in half an hour; 343 are left.
        assert (found["based_on_seconds"], found["atoms_per_hour"]) == (1_800, "114")
        assert (found["empty_in_seconds"], found["ends_by"]) == (343 * 1_800 // 57, first)
        assert found["ends_at"] == NOW_AT + ends_in


async def test_expired_key_is_refused(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _):
        secret, _ = await limited(g, expires_at=NOW_AT + 60)
        assert (await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))).status_code == 200
        await nodes[1].orders.get()
        g.clock.now_ms += 60_000
        answer = await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))
        assert (answer.status_code, answer.json()["code"]) == (401, "key_revoked")
        assert "expired" in answer.json()["detail"]
        assert nodes[1].orders.empty()


async def test_revoked_key_is_refused_from_the_next_call_on(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        assert (await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))).status_code == 200
        assert (await g.http.delete("/v1/keys/me", headers=bearer(secret))).status_code == 204
        for method, path, body in (("POST", CHAT, chat_body()), ("GET", "/v1/jobs", None)):
            answer = await g.http.request(method, path, json=body, headers=bearer(secret))
            assert (answer.status_code, answer.json()["code"]) == (401, "key_revoked")
        again = await g.http.delete("/v1/keys/me", headers=bearer(secret))
        assert again.status_code == 401
        assert nodes[1].orders.qsize() == 1


async def test_key_revoked_by_another_process_orders_nothing(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        me = (await g.http.get("/v1/keys/me", headers=bearer(secret))).json()["address"]
        with g.store.transaction() as tx:
            keys.revoke(tx, me, g.clock())
        answer = await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))
        assert (answer.status_code, answer.json()["code"]) == (401, "key_revoked")
        assert nodes[1].orders.empty()


async def test_key_its_buyer_revoked_on_the_chain_orders_nothing_until_granted_again(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        me = (await g.http.get("/v1/keys/me", headers=bearer(secret))).json()["address"]

        async def status():
            return (await g.http.post(CHAT, json=chat_body(), headers=bearer(secret))).status_code

        said(g, "KeySet", me, 5)
        assert await status() == 200
        said(g, "KeyRevoked", me, 6)
        assert await status() == 401
        said(g, "KeySet", me, 7)
        said(g, "KeyRevoked", "0x" + "ab" * 20, 8)
        assert await status() == 200
        assert nodes[1].orders.qsize() == 2


async def test_order_signed_by_a_key_revoked_on_the_chain_is_not_sent_on(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        assert (await buyer.place()).status_code == 202
        said(g, "KeyRevoked", buyer.key.address, 6)
        answer = await buyer.place()
        assert (answer.status_code, answer.json()["code"]) == (401, "key_revoked")
        assert len(json.loads(g.rows())["order"]) == 1
        assert buyer.node.orders.qsize() == 1


def visit(g, signer):
    message = Visit(key=signer.address, issued_at_ms=g.clock())
    return {"x-watt-visit": f"{to_hex(message.encode())}.{to_hex(signer.sign(message, DOMAIN))}"}


async def test_order_signed_by_a_granted_key_is_held_to_the_models_its_buyer_named(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        place, stranger = f"/v1/grants/{buyer.key.address}", visit(g, buyer.key)
        for headers, models in ((visit(g, BUYER), ["m*"]), (stranger, ["tiny"])):
            told = await g.http.put(place, json={"models": models}, headers=headers)
            assert told.json()["models"] == models
        refused = await buyer.place()
        assert (refused.status_code, refused.json()["code"]) == (403, "model_not_allowed")
        assert refused.json()["charged"] is False
        await g.http.put(place, json={"models": ["m*", "t?ny"]}, headers=visit(g, BUYER))
        assert (await buyer.place()).status_code == 202
        await g.http.put(place, json={"models": []}, headers=visit(g, BUYER))
        assert (await buyer.place()).status_code == 202
        for headers, code in (({}, "bad_signature"), ({"x-watt-visit": "0x00.0x00"}, "bad_signature")):
            assert (await g.http.put(place, json={"models": []}, headers=headers)).json()["code"] == code
        bad = await g.http.put(place, json={"models": [""]}, headers=visit(g, BUYER))
        assert (bad.status_code, bad.json()["error"]["param"]) == (422, "models")


async def test_key_shows_its_limits_and_open_sessions(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1):
        secret, address = await limited(g, models=["tiny-*"], budget=5, expires_at=NOW_AT + 60)
        g.put_session(address, 1, 70, closed=True)
        shown = (await g.http.get("/v1/keys/me", headers=bearer(secret))).json()
        assert (shown["address"], shown["label"], shown["models"]) == (address, "agent", ["tiny-*"])
        assert (shown["budget_atoms"], shown["spent_atoms"], shown["expires_at"]) == (
            "5000000",
            "0",
            NOW_AT + 60,
        )
        assert (shown["sessions_left_atoms"], shown["left_atoms"], shown["left"]) == (
            "1000000",
            "1000000",
            "1.00",
        )
        assert [session["node_id"] for session in shown["sessions"]] == [1]
        assert (await g.http.get("/v1/keys/me")).json()["code"] == "missing_key"


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        ({"models": [""]}, "models"),
        ({"models": ["a\nb"]}, "models"),
        ({"models": ["x" * 129]}, "models"),
        ({"models": ["x"] * 33}, "models"),
        ({"budget": "-1"}, "budget"),
        ({"budget": "much"}, "budget"),
        ({"expires_at": NOW_AT}, "expires_at"),
        ({"expires_at": 0}, "expires_at"),
    ],
)
async def test_limits_that_make_no_sense_are_refused(tmp_path, limits, param):
    async with gateway(tmp_path) as g:
        answer = await g.http.post("/v1/keys", json=limits)
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)

"""Paying for a call without a key, by x402."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import time

import pytest
from openai import AsyncOpenAI
from x402.http.clients.httpx import x402HttpxClient
from x402.http.utils import decode_payment_required_header, decode_payment_response_header

from marketplace.protocol import merkle
from marketplace.protocol.messages import Order
from marketplace.protocol.quotes import Quote
from marketplace.protocol.signing import Signer
from tests.flow.gateway import NOW_AT, NOW_MS, Clock, gateway
from tests.flow.node import Node, bearer, chat_body, funded
from tests.flow.paying import client, install, kept, opening, payment, required, wanted
from tests.flow.selling import ask, pay, selling


def today():
    """The stock client has no other clock."""
    return Clock(time.time_ns() // 1_000_000)


async def test_call_without_a_key_is_told_the_price_and_where_to_pay(tmp_path):
    async with selling(tmp_path) as (g, _):
        answer = await ask(g)
        assert answer.status_code == 402
        body = answer.json()
        assert (body["code"], body["charged"]) == ("payment_required", False)
        assert body["error"]["code"] == "payment_required"
        assert answer.headers["cache-control"] == "no-store"
        asked = decode_payment_required_header(answer.headers["payment-required"])
        [only] = asked.accepts
        assert (only.scheme, only.network, only.asset) == ("exact", "eip155:31337", g.market.deployment.token)
        assert (only.extra["name"], only.extra["version"]) == ("Test Dollar", "1")
        assert int(only.amount) > 0
        assert only.extra["quote"]["node"] == 1
        assert kept(g) == []


async def test_two_calls_are_told_two_addresses(tmp_path):
    async with selling(tmp_path) as (g, _):
        first, second = required(await ask(g)), required(await ask(g))
        assert first["accepts"][0]["payTo"] != second["accepts"][0]["payTo"]


async def test_stock_client_pays_and_streams(tmp_path):
    async with (
        selling(tmp_path, clock=today()) as (g, _),
        opening(g),
        x402HttpxClient(client(), base_url=g.url) as http,
    ):
        body = chat_body(stream=True)
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = [line async for line in answer.aiter_lines() if line.startswith("data: {")]
        assert answer.status_code == 200
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
        assert text == "Hello world"
        said = decode_payment_response_header(answer.headers["payment-response"])
        assert said.success
        assert chunks[-1]["x402_payment_response"]["extra"]["receiver"] == kept(g)[0].receiver
        assert chunks[-1]["receipt"]["job_id"] == chunks[-1]["job_id"]


async def test_stock_openai_client_pays_through_it(tmp_path):
    async with selling(tmp_path, clock=today()) as (g, _), opening(g), x402HttpxClient(client()) as http:
        openai = AsyncOpenAI(base_url=f"{g.url}/v1", api_key="x402", http_client=http, max_retries=0)
        found = await openai.embeddings.create(model="mini", input=["one", "two"])
        assert [row.embedding for row in found.data] == [[1.0, 0.0, 0.5], [1.0, 1.0, 0.5]]
        assert found.model_extra["x402_payment_response"]["success"] is True


async def test_order_is_the_one_that_was_quoted(tmp_path):
    async with selling(tmp_path) as (g, node), opening(g):
        data = payment(required(await ask(g)))
        assert (await pay(g, data)).status_code == 200
        frame = await node.orders.get()
        order, [row] = Order.decode(frame.order.message), kept(g)
        quote = Quote.decode(row.quote)
        assert order.offer_hash == quote.offer_hash
        assert order.request_hash == quote.request_hash == merkle.request_hash(frame.salt, frame.payload)
        assert order.max_amount_atoms == quote.amount_atoms
        assert "0x" + order.session_id.hex() == row.session_id


async def test_same_payment_is_the_same_job_and_is_taken_once(tmp_path):
    async with selling(tmp_path) as (g, node), opening(g):
        data = payment(required(await ask(g)))
        answers = await asyncio.gather(*(pay(g, data) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["job_id"] for answer in answers}) == 1
        assert len(wanted(g, "x402-pay")) == 1
        assert node.orders.qsize() == 1


async def test_same_payment_with_another_body_is_refused(tmp_path):
    async with selling(tmp_path) as (g, _), opening(g):
        data = payment(required(await ask(g)))
        await pay(g, data)
        again = await pay(g, data, max_tokens=15)
        assert (again.status_code, again.json()["code"]) == (422, "invalid_request")
        assert again.json()["charged"] is False


async def test_second_payment_of_the_same_quote_is_refused(tmp_path):
    async with selling(tmp_path) as (g, _), opening(g):
        asked = required(await ask(g))
        await pay(g, payment(asked))
        again = await pay(g, payment(asked, nonce=b"\x02" * 32))
        assert again.status_code == 422
        assert len(kept(g)) == 1


async def test_second_payment_under_the_same_identifier_is_the_same_job_and_stays_unused(tmp_path):
    async with selling(tmp_path) as (g, _), opening(g):
        first = await pay(g, payment(required(await ask(g)), identifier="pay_1234567890123456"))
        fresh = required(await ask(g))
        second = await pay(g, payment(fresh, identifier="pay_1234567890123456", nonce=b"\x02" * 32))
        assert first.json()["job_id"] == second.json()["job_id"]
        assert len(kept(g)) == len(wanted(g, "x402-pay")) == 1
        other = required(await ask(g, max_tokens=15))
        refused = await pay(g, payment(other, identifier="pay_1234567890123456"), max_tokens=15)
        assert refused.status_code == 422


async def test_identifier_is_the_payers_own(tmp_path):
    async with selling(tmp_path) as (g, _), opening(g):
        first = await pay(g, payment(required(await ask(g)), identifier="pay_1234567890123456"))
        other = Signer(b"\x51" * 32)
        data = payment(required(await ask(g)), other, payer=other.address, identifier="pay_1234567890123456")
        assert (await pay(g, data)).json()["job_id"] != first.json()["job_id"]


THIEF = Signer(b"\x52" * 32)


@pytest.mark.parametrize(
    ("signer", "changes", "reason"),
    [
        (THIEF, {}, "must be signed by"),
        (None, {"valid_before": NOW_AT}, "not valid now"),
        (None, {"valid_after": NOW_AT}, "not valid now"),
    ],
)
async def test_payment_that_the_token_would_refuse_is_refused_with_a_fresh_quote(
    tmp_path, signer, changes, reason
):
    async with selling(tmp_path) as (g, _):
        asked = required(await ask(g))
        answer = await pay(g, payment(asked, *([signer] if signer else []), **changes))
        assert (answer.status_code, answer.json()["charged"]) == (402, False)
        assert reason in answer.json()["detail"]
        said = decode_payment_response_header(answer.headers["payment-response"])
        assert (said.success, reason in said.error_reason) == (False, True)
        assert required(answer)["accepts"][0]["payTo"] != asked["accepts"][0]["payTo"]
        assert kept(g) == []


async def test_payment_for_another_request_is_refused(tmp_path):
    async with selling(tmp_path) as (g, _):
        answer = await pay(g, payment(required(await ask(g))), messages=[{"role": "user", "content": "Bye"}])
        assert answer.status_code == 402
        assert "another request" in answer.json()["detail"]
        assert kept(g) == []


@pytest.mark.parametrize("name", ["offer", "payBefore", "salt"])
async def test_payment_whose_quote_was_altered_is_refused(tmp_path, name):
    async with selling(tmp_path) as (g, _):
        data = payment(required(await ask(g)))
        hint = data["accepted"]["extra"]["quote"]
        hint[name] = hint[name] + 1 if name == "payBefore" else "0x" + "ab" * 32
        assert (await pay(g, data)).status_code == 402
        assert kept(g) == []


async def test_payment_of_an_expired_quote_is_refused(tmp_path):
    async with selling(tmp_path) as (g, _):
        data = payment(required(await ask(g)), valid_before=NOW_AT + 600)
        g.clock.now_ms = NOW_MS + 60_000
        answer = await pay(g, data)
        assert answer.status_code == 402
        assert "expired" in answer.json()["detail"]


async def test_payment_that_the_chain_refuses_is_refused_with_its_reason(tmp_path):
    async with selling(tmp_path) as (g, _), opening(g, "ERC20InsufficientBalance(…)"):
        answer = await pay(g, payment(required(await ask(g))))
        assert (answer.status_code, answer.json()["charged"]) == (402, False)
        assert "ERC20InsufficientBalance" in answer.json()["detail"]


async def test_node_that_fails_after_the_payment_charges_nothing(tmp_path):
    async with selling(tmp_path, Node.fail) as (g, _), opening(g):
        answer = await pay(g, payment(required(await ask(g))))
        assert (answer.status_code, answer.json()["charged"]) == (503, False)
        [row] = kept(g)
        assert g.session(row.session_id).owed_atoms == 0
        said = decode_payment_response_header(answer.headers["payment-response"])
        assert (said.success, said.extra["receiver"]) == (True, row.receiver)


async def test_failed_call_is_tried_again_with_the_same_payment_while_its_session_lasts(tmp_path):
    async with selling(tmp_path, Node.fail) as (g, node), opening(g):
        data = payment(required(await ask(g)))
        assert (await pay(g, data)).status_code == 503
        node.behaviour = Node.work
        assert (await pay(g, data)).status_code == 200
        assert len(kept(g)) == len(wanted(g, "x402-pay")) == 1
        node.behaviour = Node.fail


async def test_payment_whose_session_is_over_is_answered_with_a_fresh_quote(tmp_path):
    async with selling(tmp_path, Node.fail) as (g, _), opening(g):
        data = payment(required(await ask(g)))
        await pay(g, data)
        g.clock.now_ms += 120_000
        answer = await pay(g, data)
        assert (answer.status_code, answer.json()["code"]) == (402, "payment_required")
        assert "time is over" in answer.json()["detail"]
        assert required(answer)["accepts"]


def _broken(change):
    def apply(data):
        data = copy.deepcopy(data)
        change(data)
        return data

    return apply


def _set(*path, value):
    def change(data):
        for name in path[:-1]:
            data = data[name]
        data[path[-1]] = value

    return _broken(change)


AUTHORIZATION = ("payload", "authorization")


@pytest.mark.parametrize(
    "breaking",
    [
        lambda _: "not base64!",
        lambda _: base64.b64encode(b"\xff\xfe").decode(),
        lambda _: base64.b64encode(b"[1]").decode(),
        lambda _: base64.b64encode(b"[" * 9_000).decode(),
        lambda _: "A" * 20_000,
        _set("x402Version", value=1),
        _set("accepted", "scheme", value="upto"),
        _set("accepted", "network", value="eip155:1"),
        _set("accepted", "asset", value="0x" + "99" * 20),
        _set("accepted", "payTo", value="0x12"),
        _set("accepted", "amount", value="1"),
        _set("accepted", "extra", value={}),
        _set("accepted", "extra", "quote", "salt", value="0x12"),
        _set("accepted", "extra", "quote", "payBefore", value=-1),
        _set(*AUTHORIZATION, "value", value="1"),
        _set(*AUTHORIZATION, "from", value=None),
        _set(*AUTHORIZATION, "to", value="0x" + "98" * 20),
        _set(*AUTHORIZATION, "nonce", value="0x" + "00" * 31),
        _set(*AUTHORIZATION, "validBefore", value="1e9"),
        _set(*AUTHORIZATION, "validBefore", value="9" * 79),
        _set("payload", "signature", value="zz"),
        _set("extensions", value={"payment-identifier": {"info": {"id": "short"}}}),
    ],
)
async def test_payment_that_cannot_be_read_is_refused(tmp_path, breaking):
    async with selling(tmp_path) as (g, _):
        answer = await pay(g, breaking(payment(required(await ask(g)))))
        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_payment")
        assert answer.json()["charged"] is False
        assert kept(g) == []


async def test_signature_of_a_contract_wallet_is_not_taken_here(tmp_path):
    async with selling(tmp_path) as (g, _):
        data = _set("payload", "signature", value="0x" + "01" * 100)(payment(required(await ask(g))))
        answer = await pay(g, data)
        assert answer.status_code == 402
        assert "signature is not readable" in answer.json()["detail"]


async def test_free_offer_costs_one_atom_that_comes_back(tmp_path):
    async with selling(tmp_path) as (g, node), opening(g):
        node.price = (0, 0, 0)
        await node.offer()
        await node.calm()
        asked = required(await ask(g))
        assert asked["accepts"][0]["amount"] == "1"
        answer = await pay(g, payment(asked))
        assert answer.status_code == 200
        assert answer.json()["usage"]["cost_details"]["atoms"] == "0"


async def test_price_above_the_callers_limit_asks_for_no_payment(tmp_path):
    async with selling(tmp_path) as (g, _):
        answer = await ask(g, max_cost="0.000001")
        assert (answer.status_code, answer.json()["code"]) == (402, "price_above_max")
        assert "payment-required" not in answer.headers


async def test_gateway_without_a_till_still_wants_a_key(tmp_path):
    async with gateway(tmp_path) as g:
        answer = await ask(g)
        assert (answer.status_code, answer.json()["code"]) == (401, "missing_key")


async def test_key_pays_as_before_where_there_is_a_till(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _):
        install(g)
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert answer.status_code == 200
        assert "payment-response" not in answer.headers
        wrong = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer("sk-watt-nobody"))
        assert wrong.status_code == 401


async def test_discovery_lists_each_model_with_its_route(tmp_path):
    async with selling(tmp_path) as (g, _):
        found = (await g.http.get("/discovery/resources", params={"limit": 1})).json()
        assert found["pagination"] == {"limit": 1, "offset": 0, "total": 2}
        [item] = found["items"]
        assert (item["resource"], item["type"]) == (f"{g.url}/v1/embeddings", "http")
        assert item["accepts"][0]["scheme"] == "exact"
        assert "payTo" not in item["accepts"][0]
        assert (await g.http.get("/discovery/resources", params={"type": "mcp"})).json()["items"] == []
        assert (await g.http.get("/discovery/resources", params={"offset": -1})).status_code == 422


async def test_discovery_is_empty_without_a_till(tmp_path):
    async with gateway(tmp_path) as g:
        assert (await g.http.get("/discovery/resources")).json()["pagination"]["total"] == 0

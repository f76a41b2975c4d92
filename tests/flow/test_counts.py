"""Quotes by the node's own count of tokens, and orders that allow no more than was quoted."""

from __future__ import annotations

import pytest

from marketplace import counting
from marketplace.protocol import wire
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Order
from marketplace.protocol.payloads import parse_payload
from tests.api.test_requests import check_problem
from tests.flow.gateway import CHAT_MODEL, gateway
from tests.flow.node import Node, bearer, chat_body, funded
from tests.flow.sdk import sdk

# 10 a job, 1 for each unit in, 2 for each of 16 out. In bytes the input is 82 at most, by the node 5.
EXACT, BOUND = 10 + 5 + 32, 10 + 82 + 32


async def quoted(g, **changes):
    answer = await g.http.post("/v1/quotes", json=chat_body(**changes))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body, [int(row["ceiling_atoms"]) for row in body["quotes"]]


async def test_quote_is_by_the_nodes_own_count(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _):
        nodes[1].counted = 5
        body, ceilings = await quoted(g)
        assert body["input_units"] == {"count": 5, "exact": True, "estimate": None}
        assert (ceilings, body["quotes"][0]["units_in_ceiling"]) == ([EXACT], 5)
        (asked,) = nodes[1].counts
        assert parse_payload(asked.payload).model == to_hex(CHAT_MODEL)


async def test_only_the_node_that_would_get_the_order_sees_the_question(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, 2) as (_, nodes, _):
        nodes[2].price, nodes[2].counted = (9, 1_000_000, 2_000_000), 5
        await nodes[2].offer()
        await nodes[2].calm()
        _, ceilings = await quoted(g)
        assert ceilings == [EXACT - 1, EXACT], "the same files count the same at every node"
        assert (len(nodes[1].counts), len(nodes[2].counts)) == (0, 1)


@pytest.mark.parametrize("counted", [None, 83], ids=["it cannot tell", "more than there are bytes"])
async def test_without_a_count_the_bound_in_bytes_holds_and_says_so(tmp_path, counted):
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _):
        nodes[1].counted = counted
        body, ceilings = await quoted(g)
        assert body["input_units"] == {"count": 82, "exact": False, "estimate": "bytes"}
        assert ceilings == [BOUND]


async def test_node_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_PATIENCE_SECONDS", 0.05)
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _):
        nodes[1].counts_at_all = False
        body, _ = await quoted(g)
        assert not body["input_units"]["exact"]
        # Its answer comes when nobody waits any more, and changes nothing.
        await nodes[1].send(wire.Counted(number=nodes[1].counts[0].number, units_in=1))
        await nodes[1].calm()
        assert g.market.counter._asked == {}


async def test_call_with_a_limit_waits_for_the_count_of_a_busy_node(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_PATIENCE_SECONDS", 0.05)
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        nodes[1].counted, nodes[1].count_seconds = 5, 0.2
        body, ceilings = await quoted(g)
        assert (body["input_units"]["exact"], ceilings) == (False, [BOUND])
        limit = "0.000047"
        body, ceilings = await quoted(g, max_cost=limit)
        assert (body["input_units"]["exact"], ceilings) == (True, [EXACT])
        call = chat_body(max_cost=limit)
        answer = await g.http.post("/v1/chat/completions", json=call, headers=bearer(secret))
        assert answer.status_code == 200, answer.text


async def test_call_at_its_quote_asks_a_node_no_second_time(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_REMEMBERED", 2)
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        nodes[1].counted = 5
        await quoted(g)
        nodes[1].counts_at_all = False
        call = chat_body(max_cost="0.000047")
        answer = await g.http.post("/v1/chat/completions", json=call, headers=bearer(secret))
        assert answer.status_code == 200, answer.text
        assert len(nodes[1].counts) == 1
        nodes[1].counts_at_all = True
        for text in ("one", "two"):
            await quoted(g, messages=[{"role": "user", "content": text}])
        await quoted(g)
        assert len(nodes[1].counts) == 4, "the oldest is forgotten"


async def test_answer_of_another_node_does_not_count(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "_PATIENCE_SECONDS", 0.2)
    async with gateway(tmp_path) as g, funded(g, 1, 2) as (_, nodes, _):
        nodes[1].counts_at_all = False
        for number in range(4):
            await nodes[2].send(wire.Counted(number=number, units_in=1))
        await nodes[2].calm()
        body, _ = await quoted(g, node=1)
        assert not body["input_units"]["exact"]


async def test_long_request_and_pictures_ask_no_node(tmp_path, monkeypatch):
    monkeypatch.setattr(counting, "MAX_COUNTED_BYTES", 100)
    async with gateway(tmp_path) as g, funded(g, 1) as (_, nodes, _):
        body, _ = await quoted(g)
        assert not body["input_units"]["exact"]
        nodes[1].embed_model_task = "classify-image"
        await nodes[1].offer()
        await nodes[1].calm()
        answer = await g.http.post(
            "/v1/quotes", json={"model": "mini", "task": "classify-image", "body": {"images": ["aGVsbG8="]}}
        )
        assert answer.json()["input_units"] == {"count": 1, "exact": True, "estimate": None}
        assert nodes[1].counts == []


async def test_choices_are_priced_together(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        nodes[1].counted = 5
        body, ceilings = await quoted(g, n=3)
        assert (body["n"], ceilings) == (3, [3 * EXACT])
        cheap, dear = [
            (await quoted(g, n=3, max_cost=limit))[0]["quotes"][0]["why_not"]
            for limit in ("0.000141", "0.00014")
        ]
        assert (cheap, dear) == (None, "price_above_max")
        call = chat_body(n=3, seed=1, max_cost="0.000141")
        answer = await g.http.post("/v1/chat/completions", json=call, headers=bearer(secret))
        assert answer.status_code == 200
        embeds = {"model": "mini", "input": "a", "n": 2}
        check_problem(await g.http.post("/v1/quotes", json=embeds), 422, "unsupported")


async def test_call_at_the_quoted_ceiling_is_placed_and_its_order_allows_no_more(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        nodes[1].counted = 5
        call = chat_body(max_cost="0.000047")
        answer = await g.http.post("/v1/chat/completions", json=call, headers=bearer(secret))
        assert answer.status_code == 200, answer.text
        assert Order.decode(nodes[1].orders.get_nowait().order.message).max_amount_atoms == EXACT
        too_little = chat_body(max_cost="0.000046")
        refused = await g.http.post("/v1/chat/completions", json=too_little, headers=bearer(secret))
        assert "may cost 47 atoms" in check_problem(refused, 402, "price_above_max")["detail"]


async def test_call_within_the_bound_asks_no_node(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, nodes, _):
        nodes[1].counted = 5
        await g.http.post("/v1/chat/completions", json=chat_body(max_cost="1"), headers=bearer(secret))
        assert nodes[1].counts == []
        assert Order.decode(nodes[1].orders.get_nowait().order.message).max_amount_atoms == BOUND


async def test_session_that_holds_the_exact_price_is_enough(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, atoms=EXACT) as (secret, nodes, _):
        check_problem(
            await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret)),
            402,
            "session_underfunded",
        )
        nodes[1].counted = 5
        answer = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("counted", [5, None])
async def test_node_that_takes_over_is_asked_for_its_count_too(tmp_path, counted):
    async with gateway(tmp_path) as g, funded(g, 1, 2, behaviours={1: Node.fail}) as (secret, nodes, _):
        nodes[1].counted, nodes[2].counted = 5, counted
        call = chat_body(max_cost="0.000047")
        answer = await g.http.post("/v1/chat/completions", json=call, headers=bearer(secret))
        if counted is None:
            assert check_problem(answer, 503, "no_node")["charged"] is False
        else:
            assert answer.status_code == 200
            assert Order.decode(nodes[2].orders.get_nowait().order.message).max_amount_atoms == EXACT


async def test_signed_order_below_the_bound_goes_to_its_node_which_decides(tmp_path):
    async with gateway(tmp_path) as g, sdk(g) as buyer:
        done = await buyer.place(buyer.body(max_amount_atoms=EXACT), accept="text/event-stream")
        assert "event: receipt" in done.text
        buyer.node.behaviour = Node.refuse
        refused = await buyer.place(buyer.body(max_amount_atoms=42), accept="text/event-stream")
        assert '"charged":false' in refused.text.replace(" ", "")

"""Paying for a call without a key while its node renews, ends or withdraws the offer."""

from __future__ import annotations

import asyncio

from marketplace.protocol.messages import Order
from marketplace.protocol.quotes import Quote
from tests.flow.gateway import CHAT_MODEL, NOW_AT, NOW_MS
from tests.flow.paying import kept, opening, payment, required
from tests.flow.selling import ask, pay, selling


async def test_offer_that_was_renewed_since_it_was_quoted_is_paid_and_ordered(tmp_path):
    async with selling(tmp_path) as (g, node), opening(g):
        data = payment(required(await ask(g)))
        await node.offer(salt=b"\x07" * 32)
        await node.calm()
        assert (await pay(g, data)).status_code == 200
        order = Order.decode((await node.orders.get()).order.message)
        assert order.offer_hash == Quote.decode(kept(g)[0].quote).offer_hash


async def test_quote_ends_no_later_than_its_offer(tmp_path):
    async with selling(tmp_path) as (g, node):
        await node.offer(valid_until=NOW_AT + 20)
        await node.calm()
        [told] = required(await ask(g))["accepts"]
        assert (told["maxTimeoutSeconds"], told["extra"]["quote"]["payBefore"]) == (20, NOW_AT + 20)


async def test_payment_whose_offer_ends_on_its_way_gets_a_fresh_quote(tmp_path):
    async with selling(tmp_path) as (g, node):
        await node.offer(valid_until=NOW_AT + 20)
        await node.calm()
        asked = required(await ask(g))
        paying = asyncio.create_task(pay(g, payment(asked)))
        for _ in range(500):
            if kept(g):
                break
            await asyncio.sleep(0.01)
        await node.offer()
        await node.calm()
        g.clock.now_ms = NOW_MS + 20_000
        async with opening(g):
            answer = await paying
        assert (answer.status_code, answer.json()["charged"]) == (402, False)
        assert "time is over" in answer.json()["detail"]
        assert required(answer)["accepts"][0]["payTo"] != asked["accepts"][0]["payTo"]
        assert node.orders.empty()


async def test_payment_for_a_model_that_was_withdrawn_is_refused(tmp_path):
    async with selling(tmp_path) as (g, node):
        data = payment(required(await ask(g)))
        await node.offer(without=CHAT_MODEL)
        await node.calm()
        answer = await pay(g, data)
        assert answer.status_code == 404
        assert kept(g) == []

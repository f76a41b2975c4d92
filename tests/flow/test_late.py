"""Receipts that come after their lease lapsed: accepted once, or superseded."""

from __future__ import annotations

import asyncio

from marketplace.protocol import wire
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded, voucher_of


async def lapsed(g, secret, node):
    """A job whose order lapsed at its node; the call still waits."""
    call = asyncio.create_task(g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret)))
    frame = await node.orders.get()
    await node.calm()
    signed_at = g.clock.now_ms
    g.clock.now_ms += g.market.terms.lease_ms + 1
    await g.tick()
    return call, frame, signed_at


async def test_late_receipt_signed_in_its_lease_is_accepted_while_nobody_else_has_the_job(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        call, frame, signed_at = await lapsed(g, secret, nodes[1])
        assert g.session(opened[1]).reserved_atoms == 0
        await nodes[1].deliver(frame, finished_at_ms=signed_at, started_at_ms=signed_at)
        await nodes[1].expect(wire.Delivered)
        assert (await call).status_code == 200
        session = g.session(opened[1])
        assert (session.owed_atoms, session.reserved_atoms) == (19, 0)
        await nodes[1].expect(wire.VoucherFrame)


async def test_late_receipt_signed_after_its_lease_is_superseded(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        call, frame, _ = await lapsed(g, secret, nodes[1])
        await nodes[1].deliver(frame)
        await nodes[1].expect(wire.Superseded)
        assert g.session(opened[1]).owed_atoms == 0
        call.cancel()


async def test_late_receipt_is_superseded_once_another_node_has_the_job(tmp_path):
    async with (
        gateway(tmp_path) as g,
        funded(g, 1, 2, behaviours={1: Node.idle, 2: Node.idle}) as (secret, nodes, opened),
    ):
        call, frame, signed_at = await lapsed(g, secret, nodes[1])
        second = await nodes[2].orders.get()
        await nodes[1].deliver(frame, finished_at_ms=signed_at, started_at_ms=signed_at)
        await nodes[1].expect(wire.Superseded)
        await nodes[1].deliver(frame, finished_at_ms=signed_at, started_at_ms=signed_at)
        await nodes[1].expect(wire.Superseded)
        await nodes[2].deliver(second)
        answer = await call
        assert answer.json()["receipt"]["node"]["node_id"] == 2
        assert [g.session(s).owed_atoms for s in opened.values()] == [0, 19]
        await nodes[2].expect(wire.VoucherFrame)


async def test_voucher_passes_over_a_lapsed_seq_and_leaves_its_receipt_out(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        node = nodes[1]
        call, lost, signed_at = await lapsed(g, secret, node)
        node.behaviour = Node.work
        await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        voucher = await node.expect(wire.VoucherFrame)
        assert voucher_of(voucher)[0].through_seq == 2
        assert voucher_of(voucher)[0].amount_atoms == 19
        await node.deliver(lost, finished_at_ms=signed_at, started_at_ms=signed_at)
        await node.expect(wire.Superseded)
        assert g.session(opened[1]).owed_atoms == 19
        call.cancel()

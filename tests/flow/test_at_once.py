"""What a node says while the gateway writes is stored at once, under one voucher."""

from __future__ import annotations

import asyncio
import os

from marketplace.protocol import wire
from marketplace.store.tables import FaultRow
from tests.flow.gateway import gateway
from tests.flow.node import Node, bearer, chat_body, funded, voucher_of
from tests.flow.test_ground import busy


async def placed(g, secret, node, count):
    calls, frames = [], []
    for _ in range(count):
        call = g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        calls.append(asyncio.create_task(call))
        frames.append(await node.orders.get())
    await node.calm()
    return calls, frames


async def heard(g, frames, node):
    """Until the gateway holds all chunks of these: they pass what waits for the disk."""
    async with asyncio.timeout(10):
        for frame in frames:
            hash_of = "0x" + node.hash_of(frame).hex()
            while len(g.market.streams.assembly(hash_of).chunks) < len(node.chunks_of(frame)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_receipts_that_come_at_once_share_a_voucher(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        node = nodes[1]
        calls, frames = await placed(g, secret, node, 4)
        async with busy(g.market):
            for frame in frames:
                await node.deliver(frame)
            await heard(g, frames, node)
        assert [(await call).status_code for call in calls] == [200] * 4
        await node.calm()
        vouchers = [voucher_of(frame)[0] for frame in node.frames if isinstance(frame, wire.VoucherFrame)]
        # The first may have been on its way when the others came.
        assert len(vouchers) <= 2
        assert vouchers[-1].through_seq == 4
        assert vouchers[-1].amount_atoms == 4 * 19 == g.session(opened[1]).owed_atoms
        assert sum(isinstance(frame, wire.Delivered) for frame in node.frames) == 4


async def test_one_lie_among_them_costs_the_others_nothing(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, opened):
        node = nodes[1]
        calls, frames = await placed(g, secret, node, 4)
        async with busy(g.market):
            await node.deliver(frames[0])
            await node.deliver(frames[1], amount_atoms=20)
            foreign, annex = node.receipt_of(frames[2], [], order_hash=b"\x09" * 32)
            await node.send_receipt(frames[2], foreign, annex, 0)
            await node.deliver(frames[3])
            await heard(g, frames[3:], node)
        assert (await calls[0]).status_code == (await calls[3]).status_code == 200
        codes = {(await node.expect(wire.Problem)).code for _ in range(2)}
        assert codes == {"receipt_invalid", "order_misdirected"}
        assert g.session(opened[1]).owed_atoms == 2 * 19
        assert (await calls[1]).status_code == 503
        with g.store.reading() as tx:
            assert tx.query(FaultRow).count() == 1
        await node.deliver(frames[2])
        assert (await calls[2]).status_code == 200


async def test_large_frames_are_not_read_ahead(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1, behaviours={1: Node.idle}) as (secret, nodes, _):
        node = nodes[1]
        (call,), (frame,) = await placed(g, secret, node, 1)
        # The link compresses.
        large = wire.ChunkFrame(order_hash=node.hash_of(frame), index=1, body=os.urandom(1 << 19))

        sent = []

        async def send_all():
            for number in range(60):
                await node.send(large)
                sent.append(number)

        async with busy(g.market):
            await node.send(wire.Accepted(order_hash=node.hash_of(frame)))
            sending = asyncio.create_task(send_all())
            before = -1
            while len(sent) != before:
                before = len(sent)
                await asyncio.sleep(1)
            # What the system's own buffers hold.
            assert 0 < len(sent) < 40
        await asyncio.wait_for(sending, 20)
        g.market.hang_up()
        assert (await call).status_code >= 500

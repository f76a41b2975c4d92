"""What leaves for a gateway, what is on disk before it does, and what a link that breaks does not undo."""

from __future__ import annotations

import asyncio

import pytest

from marketplace.protocol import wire
from tests.worker.node.test_link import eventually, linked
from tests.worker.support import GATEWAY, Bench
from worker.node.delivery import Delivery
from worker.node.rules import MAX_SKEW_MS


@pytest.mark.parametrize(("lease_ms", "noted_before"), [(60_000, False), (MAX_SKEW_MS, True)])
async def test_when_a_late_receipt_leaves_is_on_disk_first_and_one_in_time_is_not_kept_waiting(
    bench: Bench, lease_ms: int, noted_before: bool
) -> None:
    receipt = bench.receipt(1)
    bench.clock.ms += 60_000 - lease_ms
    delivery = Delivery(bench.ledger, GATEWAY, bench.clock, poll_seconds=60)
    seen: list[bool] = []

    async def send(frame: wire.Frame) -> None:
        held = await asyncio.to_thread(bench.ledger.receipts.get, receipt.order_hash)
        assert isinstance(frame, wire.ReceiptFrame)
        seen.append(held is not None and held.sent_at_ms is not None)

    def noted() -> bool:
        held = bench.ledger.receipts.get(receipt.order_hash)
        return held is not None and held.sent_at_ms == bench.clock.ms

    delivery.add(receipt.order_hash)
    running = asyncio.create_task(delivery.run(send))
    try:
        await eventually(lambda: bool(seen) and noted())
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert seen == [noted_before]


async def test_link_that_breaks_under_the_answer_keeps_no_accepted_order_from_being_done(
    bench: Bench,
) -> None:
    async with linked(bench) as made:
        frame = made.frame()

        async def broken(_frame: wire.Frame) -> None:
            raise ConnectionResetError("the link is down")

        with pytest.raises(ConnectionResetError):
            await made.link._calls.receive(frame, made.gateway.url, broken)
        assert len(made.queue.tasks) == 1
        assert bench.ledger.orders.get(made.queue.tasks[0]) is not None


async def test_receipt_under_which_the_link_breaks_counts_as_left(bench: Bench) -> None:
    receipt = bench.receipt(1)
    delivery = Delivery(bench.ledger, GATEWAY, bench.clock, poll_seconds=60)

    async def broken(_frame: wire.Frame) -> None:
        raise ConnectionResetError("the link is down")

    delivery.add(receipt.order_hash)
    with pytest.raises(ConnectionResetError):
        await delivery.run(broken)
    held = bench.ledger.receipts.get(receipt.order_hash)
    assert held is not None
    assert held.sent_at_ms == bench.clock.ms

"""Worker processes that are killed, stopped, drained, told to cut short; only the engine is tiny."""

import asyncio
import os
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from marketplace.protocol import wire
from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import Receipt, ReceiptStatus
from tests.bench.failover import spare_waits
from tests.bench.serving import Ask, Serving, serving
from worker.node.facts import read_running

pytestmark = pytest.mark.broker
APP = "tests.worker.broker.tiny_app"
ASK = Ask(words=1, tokens=8)


def done(node: Serving) -> dict[bytes, Receipt]:
    return {f.order_hash: Receipt.decode(f.receipt.message) for f in node.gateway.of(wire.ReceiptFrame)}


def check_whole(node: Serving, order_hash: bytes) -> None:
    """Every chunk once, in order, and exactly what the receipt commits to."""
    frames, held = node.chunks(order_hash), node.ledger.orders.get(order_hash)
    assert held is not None
    assert [frame.index for frame in frames] == list(range(9))
    receipt = done(node)[order_hash]
    assert (receipt.status, receipt.units_out) == (ReceiptStatus.DONE, 8)
    assert response_hash(held.salt, [frame.body for frame in frames]) == receipt.response_hash


async def test_streams_of_a_killed_worker_go_on_within_seconds_and_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_PACE_SECONDS", "0.4")
    async with serving(tmp_path, "tiny", worker_app=APP, slots=8, spare_worker=True) as node:
        await spare_waits(node)
        orders = [await node.order(ASK) for _ in range(8)]
        await node.gateway.until(lambda: all(len(node.chunks(order)) >= 2 for order in orders), 60)
        victim = node.worker
        os.kill(victim, signal.SIGKILL)
        began = time.monotonic()
        seen = {order: len(await asyncio.to_thread(node.ledger.chunks.of, order)) for order in orders}
        await node.gateway.until(lambda: all(len(node.chunks(o)) > seen[o] for o in orders), 60)
        assert time.monotonic() - began < 15
        await node.gateway.until(lambda: len(done(node)) == 8, 60)
        for order in orders:
            check_whole(node, order)
            held = node.ledger.orders.get(order)
            assert held is not None
            assert held.attempts == 2
        assert node.worker != victim


async def test_worker_whose_engine_hangs_ends_itself_and_its_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_HANGS", str(tmp_path / "hung"))
    async with serving(tmp_path, "tiny", worker_app=APP, slots=4, stuck_seconds=2) as node:
        victim = node.worker
        order = await node.order(ASK)
        await node.gateway.until(lambda: order in done(node), 120)
        check_whole(node, order)
        held = node.ledger.orders.get(order)
        assert held is not None
        assert held.attempts == 2
        assert node.worker != victim


async def test_worker_asked_to_stop_hands_its_jobs_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_PACE_SECONDS", "0.4")
    async with serving(tmp_path, "tiny", worker_app=APP, slots=4, hand_over_ms=0) as node:
        orders = [await node.order(ASK) for _ in range(8)]
        await node.gateway.until(lambda: sum(len(node.chunks(order)) >= 2 for order in orders) == 4, 60)
        victim = node.worker
        os.kill(victim, signal.SIGTERM)
        await node.gateway.until(lambda: len(done(node)) == 8, 120)
        for order in orders:
            check_whole(node, order)
            held = node.ledger.orders.get(order)
            assert held is not None
            # What was left in order does not count as a crash.
            assert held.attempts == 1
        assert node.worker != victim


async def test_drain_with_96_jobs_queued_loses_none(tmp_path: Path) -> None:
    async with serving(tmp_path, "tiny", worker_app=APP, slots=4) as node:
        with node.paused():
            orders = [await node.order(ASK) for _ in range(96)]
            node.notes.ask_drain()
        assert node.task is not None
        await node.task
        assert sorted(done(node)) == sorted(orders)
        assert {receipt.status for receipt in done(node).values()} == {ReceiptStatus.DONE}
        assert node.gateway.of(wire.Heartbeat)[-1].draining


async def test_jobs_a_stopped_node_left_are_done_by_its_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_PACE_SECONDS", "0.1")
    async with serving(tmp_path, "tiny", worker_app=APP, slots=4, stop_seconds=1, hand_over_ms=0) as node:
        with node.paused():
            orders = [await node.order(ASK) for _ in range(24)]
            node.daemon.stop()
        assert node.task is not None
        await node.task
        first = len(done(node))
    assert first < 24
    monkeypatch.setenv("TINY_PACE_SECONDS", "0")
    async with serving(tmp_path, "tiny", worker_app=APP, slots=4) as node:
        async with asyncio.timeout(120):
            while not all(map(node.ledger.receipts.get, orders)):  # noqa: ASYNC110 - processes change it
                await asyncio.sleep(0.1)
        signed = [node.ledger.receipts.get(order) for order in orders]
        assert {held.status for held in signed if held} == {ReceiptStatus.DONE}


async def test_cancelled_stream_ends_at_the_next_chunk_and_is_billed_for_what_was_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_PACE_SECONDS", "0.5")
    # So long a lease is renewed too seldom to carry the word: the broker does.
    async with serving(tmp_path, "tiny", worker_app=APP, slots=4, worker_lease_ms=120_000) as node:
        order = await node.order(ASK)
        await node.gateway.until(lambda: len(node.chunks(order)) >= 2, 60)
        await node.gateway.send(wire.Cancel(order_hash=order))
        await node.gateway.until(lambda: order in done(node), 60)
        receipt, frames, held = done(node)[order], node.chunks(order), node.ledger.orders.get(order)
        assert held is not None
        assert receipt.status == ReceiptStatus.CUT_SHORT
        assert receipt.units_out == len(frames) - 1 < 8
        assert response_hash(held.salt, [frame.body for frame in frames]) == receipt.response_hash
        port = read_running(tmp_path / "node" / "run" / "daemon.json").metrics_port
        page = await asyncio.to_thread(fetch, port)
        assert "watt_node_worker_up 1.0" in page
        assert 'watt_node_memory_bytes{device="cpu"}' in page


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())

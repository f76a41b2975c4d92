"""How long a killed worker's streams stand still, whether they go on exactly, and what a drain loses."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from marketplace.protocol import wire
from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import Receipt, ReceiptStatus
from marketplace.protocol.payloads import Answer
from tests.assure.figures import Figure
from tests.bench.models import random_llama, smollm2
from tests.bench.serving import Ask, Serving, percentile, serving

STREAMS = 8
GOAL_SECONDS = "≤ 15"
QUEUED = 96


async def failovers(model: Path, kills: int, *, tokens: int) -> tuple[list[float], int]:
    """Seconds from each kill to each stream's next chunk, and tokens repeated or missing in all streams."""
    seconds: list[float] = []
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), str(model), slots=STREAMS, spare_worker=True) as node:
            asks = [Ask(words=12 + 8 * number, tokens=tokens) for number in range(STREAMS)]
            whole = await answers(node, [await node.order(ask) for ask in asks])
            for _ in range(kills):
                await spare_waits(node)
                orders = [await node.order(ask) for ask in asks]
                seconds += await kill(node, orders)
                wrong += differences(whole, await answers(node, orders))
                print(f"kill: {[round(s, 2) for s in seconds[-STREAMS:]]}, wrong {wrong}", file=sys.stderr)
    return seconds, wrong


async def kill(node: Serving, orders: list[bytes]) -> list[float]:
    """Kills the worker once all of these stream; seconds to the first chunk each that it had not stored."""
    await node.gateway.until(lambda: all(len(node.chunks(order)) >= 2 for order in orders), 300)
    victim = node.worker
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    stored = {order: len(await asyncio.to_thread(node.ledger.chunks.of, order)) for order in orders}
    seconds: dict[bytes, float] = {}

    def all_go_on() -> bool:
        for order in orders:
            if order not in seconds and len(node.chunks(order)) > stored[order]:
                seconds[order] = time.monotonic() - began
        return len(seconds) == len(orders)

    await node.gateway.until(all_go_on, 300)
    assert node.worker != victim
    return list(seconds.values())


async def answers(node: Serving, orders: list[bytes]) -> list[tuple[str, int]]:
    """Text and tokens of each order, once all have receipts; what came must be what was signed for."""

    def receipts() -> dict[bytes, Receipt]:
        frames = node.gateway.of(wire.ReceiptFrame)
        return {f.order_hash: Receipt.decode(f.receipt.message) for f in frames if f.order_hash in orders}

    await node.gateway.until(lambda: len(receipts()) == len(orders), 480)
    found = []
    for order, receipt in ((order, receipts()[order]) for order in orders):
        frames = node.chunks(order)
        held = node.ledger.orders.get(order)
        assert held is not None
        assert receipt.status == ReceiptStatus.DONE
        # One frame an index, in order: nothing is sent twice on one link.
        assert [frame.index for frame in frames] == list(range(len(frames)))
        assert response_hash(held.salt, [frame.body for frame in frames]) == receipt.response_hash
        found.append((Answer(frame.body for frame in frames).text, receipt.units_out))
    return found


def differences(whole: list[tuple[str, int]], cut: list[tuple[str, int]]) -> int:
    """Answers whose text or token count is not that of the uninterrupted run."""
    return sum(one != other for one, other in zip(whole, cut, strict=True))


async def spare_waits(node: Serving, timeout_seconds: float = 300) -> None:
    """Returns once the spare worker has imported everything and sleeps on its input."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        pids = [
            pid for pid, line in processes() if "worker.node.spare" in line and parent(pid) == os.getpid()
        ]
        if any(sleeps_on_a_pipe(pid) for pid in pids):
            return
        await asyncio.sleep(0.2)
    raise TimeoutError("no spare worker came up")


def sleeps_on_a_pipe(pid: int) -> bool:
    """Whether the main thread of a process waits for input."""
    return Path(f"/proc/{pid}/wchan").read_text().endswith("pipe_read")


def processes() -> list[tuple[int, str]]:
    """Processes of this machine and their command lines."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found.append((int(folder.name), (folder / "cmdline").read_bytes().decode(errors="replace")))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
    return found


def parent(pid: int) -> int:
    """Process that started this one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def drained(model: Path, *, ask_to_stop: Callable[[Serving], None]) -> dict[str, float]:
    """Jobs lost of 96 when the node is asked to stop while they wait; a second start may finish them."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(Path(folder), str(model), slots=8, stop_seconds=2) as node:
            with node.paused():
                orders = [await node.order(Ask(words=16, tokens=24)) for _ in range(QUEUED)]
                began = time.monotonic()
                ask_to_stop(node)
            assert node.task is not None
            await node.task
            seconds = time.monotonic() - began
            first = len(node.gateway.of(wire.ReceiptFrame))
            node.ledger.close()
            if first == QUEUED:
                return {"first": first, "lost": 0, "seconds": seconds}
        async with serving(Path(folder), str(model), slots=8) as node:
            # Another gateway than the first: what counts is that they are signed.
            async with asyncio.timeout(400):
                while not all(map(node.ledger.receipts.get, orders)):  # noqa: ASYNC110 - processes change it
                    await asyncio.sleep(0.2)
            signed = [node.ledger.receipts.get(order) for order in orders]
            done = [held for held in signed if held and held.status == ReceiptStatus.DONE]
            return {"first": first, "lost": QUEUED - len(done), "seconds": seconds}


def figures(*, quick: bool) -> Iterator[Figure]:
    """Failover and drain; quick kills a 41 M model's worker twice, else SmolLM2's 13 times, 104 streams."""
    with tempfile.TemporaryDirectory() as folder:
        small = random_llama(Path(folder) / "llama")
        model, kills = (small, 2) if quick else (smollm2(), 13)
        seconds, wrong = asyncio.run(failovers(model, kills, tokens=48))
        what = f"{kills} kills with {STREAMS} streams"
        worst, middle = (round(percentile(seconds, share), 2) for share in (99, 50))
        yield Figure(name=f"{what}, kill to next chunk, p99", value=worst, unit="s", goal=GOAL_SECONDS)
        yield Figure(name=f"{what}, kill to next chunk, median", value=middle, unit="s")
        yield Figure(name=f"{what}, answers with a token repeated or missing", value=wrong, goal="= 0")
        asked = asyncio.run(drained(small, ask_to_stop=lambda node: node.notes.ask_drain()))
        yield Figure(name=f"drain with {QUEUED} queued, lost", value=asked["lost"], unit="jobs", goal="= 0")
        yield Figure(name=f"drain with {QUEUED} queued, took", value=round(asked["seconds"], 1), unit="s")
        stopped = asyncio.run(drained(small, ask_to_stop=lambda node: node.daemon.stop()))
        lost = f"stop with {QUEUED} queued ({stopped['first']:.0f} done), lost by the next start"
        yield Figure(name=lost, value=stopped["lost"], unit="jobs", goal="= 0")

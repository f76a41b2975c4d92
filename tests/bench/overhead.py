"""What Celery, streams and receipts cost: a node's tokens per CPU-second against its bare engine's."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.assure.figures import Figure
from tests.bench.models import random_llama, smollm2
from tests.bench.serving import Ask, Serving, asks, cpu_seconds, serving
from worker.main import now_ms
from worker.node.live import read_live

STREAMS = 64
_THREADS = 1
GOAL = "≥ 0.95"
RECEIPTS_GOAL = "< 3"
ROOT = Path(__file__).resolve().parents[2]


def bare(model: Path, work: list[Ask]) -> dict[str, float]:
    """Tokens and CPU seconds of the engine alone, in a process of its own."""
    given = json.dumps([[ask.words, ask.tokens] for ask in work])
    command = [sys.executable, "-m", "tests.bench.overhead", "--bare", str(model)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=ROOT, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_bare(model: Path, work: list[Ask]) -> dict[str, float]:
    """In that process: all jobs at once, nobody listens."""
    import threading

    from marketplace.protocol.hexes import to_hex
    from worker.inference.engine import Chunk, EngineJob, EngineSettings, Outcome
    from worker.inference.generate import ChatEngine
    from worker.metering import DeclaredSource
    from worker.models import from_directory

    found = from_directory(model)
    settings = EngineSettings(threads=_THREADS, slots=STREAMS)
    engine = ChatEngine(found, settings, energy=DeclaredSource(0), now_ms=lambda: time.time_ns() // 1_000_000)
    engine.load()
    ended: list[Any] = []
    all_ended = threading.Event()

    def hear(event: Chunk | Outcome | Exception) -> None:
        if not isinstance(event, Chunk):
            ended.append(event)
            if len(ended) == len(work):
                all_ended.set()

    before = time.process_time()
    for number, ask in enumerate(work):
        payload = ask.payload(to_hex(found.model_id))
        engine.submit(EngineJob(id=str(number), payload=payload, seed=number, stop_at_ms=1 << 60), hear)
    all_ended.wait()
    used = time.process_time() - before
    engine.close()
    return {"tokens": sum(outcome.units_out for outcome in ended), "cpu_seconds": used}


async def through(model: Path, work: list[Ask]) -> dict[str, float]:
    """Tokens, and CPU seconds of worker, daemon and broker from the first order to the last receipt."""
    with tempfile.TemporaryDirectory() as folder:
        # As many threads as the bare engine: a second one costs CPU seconds to save time.
        async with serving(Path(folder), str(model), slots=STREAMS, torch_threads=_THREADS) as node:
            print("node ready", file=sys.stderr)
            broker = json.loads((Path(folder) / "node" / "broker" / "broker.json").read_text())["pid"]
            await node.order(Ask(words=4, tokens=4))
            await node.receipts(1)
            at_first = await spent(node)
            pids = {"worker": node.worker, "broker": broker, "daemon": os.getpid()}
            before = {name: cpu_seconds(pid) for name, pid in pids.items()}
            began = time.monotonic()
            with node.paused():
                for ask in work:
                    await node.order(ask)
            receipts = (await node.receipts(1 + len(work)))[1:]
            used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
            assert all(receipt.status == 1 for receipt in receipts)
            cpu = {name: number - at_first[name] for name, number in (await spent(node)).items()}
            return {
                "tokens": sum(receipt.units_out for receipt in receipts),
                "seconds": time.monotonic() - began,
                **used,
                "receipts_share": cpu["ending"] / cpu["all"],
                "storing_share": cpu["storing"] / cpu["all"],
            }


async def spent(node: Serving) -> dict[str, int]:
    """CPU microseconds of the worker since it started, as it tells them a moment from now."""
    asked_ms = now_ms()
    path = node.settings.data_dir / "run" / "infer.json"
    found = None
    while found is None or found["at_ms"] <= asked_ms:
        await asyncio.sleep(0.1)
        found = await asyncio.to_thread(read_live, path, now_ms())
    counted: dict[str, int] = found["cpu_microseconds"]
    return counted


def measure(name: str, model: Path, work: list[Ask], rounds: int) -> Iterator[Figure]:
    """Figures of one model; rounds alternate, so that a busy neighbour meets both."""
    found: dict[str, list[float]] = {"worker": [], "node": [], "bare": [], "receipts": [], "storing": []}
    for _ in range(rounds):
        alone, whole = bare(model, work), asyncio.run(through(model, work))
        print(json.dumps({"model": name, "bare": alone, "through": whole}), file=sys.stderr)
        rate = alone["tokens"] / alone["cpu_seconds"]
        found["bare"].append(rate)
        found["worker"].append(whole["tokens"] / whole["worker"] / rate)
        found["node"].append(whole["tokens"] / (whole["worker"] + whole["daemon"] + whole["broker"]) / rate)
        found["receipts"].append(100 * whole["receipts_share"])
        found["storing"].append(100 * whole["storing_share"])
    middle = {key: round(statistics.median(values), 4) for key, values in found.items()}
    yield Figure(name=f"{name}, bare engine", value=round(middle["bare"], 1), unit="tok/cpu-s")
    yield Figure(name=f"{name}, through Celery, streams, receipts ÷ bare", value=middle["worker"], goal=GOAL)
    yield Figure(name=f"{name}, daemon, broker and the measuring gateway counted too", value=middle["node"])
    yield Figure(name=f"{name}, receipts and proofs", value=middle["receipts"], unit="%", goal=RECEIPTS_GOAL)
    yield Figure(name=f"{name}, storing and announcing chunks", value=middle["storing"], unit="%")


def figures(*, quick: bool) -> Iterator[Figure]:
    """What serving 64 streams costs; quick leaves SmolLM2 out and runs once."""
    work = asks(STREAMS, seed=23, words=(4, 24), tokens=(12, 36)) if quick else asks(STREAMS, seed=23)
    with tempfile.TemporaryDirectory() as folder:
        model = random_llama(Path(folder) / "llama-41m")
        yield from measure("random 41M", model, work, 1 if quick else 3)
    if not quick:
        yield from measure("SmolLM2-135M", smollm2(), work, 1)


def main() -> None:
    """The engine's own process: requests on stdin, tokens and CPU seconds on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bare", type=Path, required=True, metavar="MODEL")
    model = parser.parse_args().bare
    work = [Ask(words=words, tokens=tokens) for words, tokens in json.load(sys.stdin)]
    print(json.dumps(run_bare(model, work)))


if __name__ == "__main__":
    main()

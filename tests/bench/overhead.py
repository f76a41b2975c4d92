"""What Celery, streams and receipts cost: a node's rates beside those of its bare engine.

Both stay up and take turns, each with one Torch thread, the same requests, and nothing else to do. A rate is
tokens per CPU second of the process, and tokens per second as a buyer's clock has it. A turn of the node is
compared with the mean of the bare turns around it, since a host's speed drifts; of these the median.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from marketplace.protocol import wire
from marketplace.protocol.hexes import to_hex
from tests.assure.figures import Figure
from tests.bench.models import random_llama, smollm2
from tests.bench.serving import Ask, Serving, asks, cpu_seconds, percentile, serving
from worker.main import now_ms
from worker.node.live import read_live

STREAMS: Final = 64
GOAL: Final = "≥ 0.95"
RECEIPTS_GOAL: Final = "< 3"
ROOT: Final = Path(__file__).resolve().parents[2]
_THREADS: Final = 1
_SEED: Final = 23
_ROUNDS: Final = 5


@dataclass(frozen=True, kw_only=True)
class Round:
    """One turn of one side.

    Attributes:
        cpu_seconds: of the process with the engine.
        seconds: from the moment it may begin to the last answer's end.
        first_ms: median wait for an answer's first piece.
        gap_ms: median time between two pieces of an answer.
    """

    tokens: int
    cpu_seconds: float
    seconds: float
    first_ms: float
    gap_ms: float


class Bare:
    """The engine alone in a process of its own: it gets all requests at once, and nobody listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, work: Sequence[Ask]) -> Round:
        """One turn."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([[ask.words, ask.tokens] for ask in work]) + "\n")
        self._process.stdin.flush()
        return Round(**json.loads(self._process.stdout.readline()))


@contextmanager
def bare(model: Path) -> Iterator[Bare]:
    """Runs it for the block; it ends when nothing more can come."""
    command = [sys.executable, "-m", "tests.bench.overhead", "--bare", str(model)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        yield Bare(process)


class Pieces:
    """When pieces of answers came."""

    def __init__(self) -> None:
        self._at: dict[object, list[float]] = defaultdict(list)

    def add(self, answer: object, at: float) -> None:
        """A piece of an answer came; seconds."""
        self._at[answer].append(at)

    def told(self, began: float) -> dict[str, float]:
        """Fields of a `Round` that began then."""
        gaps = [b - a for times in self._at.values() for a, b in pairwise(times)]
        first = percentile([times[0] - began for times in self._at.values()], 50)
        return {"first_ms": round(1000 * first, 1), "gap_ms": round(1000 * percentile(gaps, 50), 1)}


def serve_bare(model: Path, lines: Iterable[str]) -> Iterator[Round]:
    """In that process: a turn for each line of requests."""
    from worker.inference.engine import Chunk, EngineJob, EngineSettings, Outcome
    from worker.inference.generate import ChatEngine
    from worker.metering import DeclaredSource
    from worker.models import from_directory

    found = from_directory(model)
    settings = EngineSettings(threads=_THREADS, slots=STREAMS)
    engine = ChatEngine(found, settings, energy=DeclaredSource(0), now_ms=now_ms)
    engine.load()

    def turn(work: list[Ask]) -> Round:
        pieces, ended, all_ended = Pieces(), [], threading.Event()

        def hear(number: int, event: Chunk | Outcome | Exception) -> None:
            if isinstance(event, Chunk):
                pieces.add(number, time.monotonic())
                return
            ended.append(event)
            if len(ended) == len(work):
                all_ended.set()

        before, began = time.process_time(), time.monotonic()
        for number, ask in enumerate(work):
            payload = ask.payload(to_hex(found.model_id))
            job = EngineJob(id=str(number), payload=payload, seed=number, stop_at_ms=1 << 60)
            engine.submit(job, lambda event, number=number: hear(number, event))  # type: ignore[misc]
        all_ended.wait()
        return Round(
            tokens=sum(outcome.units_out for outcome in ended),
            cpu_seconds=time.process_time() - before,
            seconds=time.monotonic() - began,
            **pieces.told(began),
        )

    for line in lines:
        yield turn([Ask(words=words, tokens=tokens) for words, tokens in json.loads(line)])
    engine.close()


@dataclass(frozen=True, kw_only=True)
class Served:
    """One turn of a node: the worker's round, and what was spent beside it.

    Attributes:
        others: CPU seconds of broker and daemon, the measuring gateway in it.
        receipts: share of the worker's CPU time that went into receipts and proofs,
        storing: and into storing and announcing chunks.
    """

    round: Round
    others: float
    receipts: float
    storing: float


async def through(node: Serving, work: Sequence[Ask]) -> Served:
    """Has a node answer; everything is ordered before its worker may begin."""
    told, of_worker, others = await spent(node), cpu_seconds(node.worker), _others(node)
    receipts, heard = len(node.gateway.of(wire.ReceiptFrame)), len(node.gateway.received)
    with node.paused():
        for ask in work:
            await node.order(ask)
    began = time.monotonic()
    fresh = (await node.receipts(receipts + len(work)))[receipts:]
    seconds = time.monotonic() - began
    of_worker, others = cpu_seconds(node.worker) - of_worker, _others(node) - others
    assert all(receipt.status == 1 for receipt in fresh)
    pieces = Pieces()
    for frame, at in zip(node.gateway.received[heard:], node.gateway.heard_at[heard:], strict=True):
        if isinstance(frame, wire.ChunkFrame):
            pieces.add(frame.order_hash, at)
    cpu = {name: number - told[name] for name, number in (await spent(node)).items()}
    return Served(
        round=Round(
            tokens=sum(receipt.units_out for receipt in fresh),
            cpu_seconds=of_worker,
            seconds=seconds,
            **pieces.told(began),
        ),
        others=others,
        receipts=cpu["ending"] / cpu["all"],
        storing=cpu["storing"] / cpu["all"],
    )


def _others(node: Serving) -> float:
    broker = json.loads((node.settings.data_dir / "broker" / "broker.json").read_text())["pid"]
    return cpu_seconds(broker) + cpu_seconds(os.getpid())


async def spent(node: Serving) -> dict[str, int]:
    """CPU microseconds of the worker since it started, as it tells them a moment from now."""
    asked_ms = now_ms()
    path = node.settings.data_dir / "run" / "infer.json"
    found: dict[str, Any] | None = None
    while found is None or found["at_ms"] <= asked_ms:
        await asyncio.sleep(0.1)
        found = await asyncio.to_thread(read_live, path, now_ms())
    counted: dict[str, int] = found["cpu_microseconds"]
    return counted


async def compare(model: Path, work: Sequence[Ask], rounds: int) -> tuple[list[Round], list[Served]]:
    """Turns of both, one after the other, so that a busy neighbour meets both; a bare one first and last."""
    alone, whole = [], []
    warm_up = asks(STREAMS // 4, seed=_SEED + 1, tokens=(2, 4))
    with tempfile.TemporaryDirectory() as folder, bare(model) as engine:
        # As many threads as the bare engine: a second one costs CPU seconds to save time.
        async with serving(Path(folder), str(model), slots=STREAMS, torch_threads=_THREADS) as node:
            await asyncio.to_thread(engine.run, warm_up)
            await through(node, warm_up)
            for _ in range(rounds):
                alone.append(await asyncio.to_thread(engine.run, work))
                whole.append(await through(node, work))
                print(json.dumps([asdict(alone[-1]), asdict(whole[-1])]), file=sys.stderr)
            alone.append(await asyncio.to_thread(engine.run, work))
    return alone, whole


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Median of each `over` to the mean of the two of `under` around it."""
    around = [statistics.mean(pair) for pair in pairwise(under)]
    return round(statistics.median(a / b for a, b in zip(over, around, strict=True)), 4)


def measure(name: str, model: Path, work: Sequence[Ask], rounds: int) -> Iterator[Figure]:
    """Figures of one model."""
    alone, whole = asyncio.run(compare(model, work, rounds))
    served = [one.round for one in whole]

    per_cpu = [one.tokens / one.cpu_seconds for one in alone]
    per_second = [one.tokens / one.seconds for one in alone]
    of_node = [one.round.tokens / (one.round.cpu_seconds + one.others) for one in whole]
    what = "Celery, streams, receipts ÷ bare"
    yield Figure(name=f"{name}, bare engine", value=round(statistics.median(per_cpu), 1), unit="tok/cpu-s")
    yield Figure(
        name=f"{name}, {what}, per CPU second",
        value=ratio([one.tokens / one.cpu_seconds for one in served], per_cpu),
        goal=GOAL,
    )
    yield Figure(
        name=f"{name}, {what}, by the clock",
        value=ratio([one.tokens / one.seconds for one in served], per_second),
        goal=GOAL,
    )
    yield Figure(
        name=f"{name}, daemon, broker and the measuring gateway counted too", value=ratio(of_node, per_cpu)
    )
    for kind, unit in (("first piece", "first_ms"), ("between pieces", "gap_ms")):
        for side, turns in (("bare", alone), ("at the gateway", served)):
            middle = statistics.median(getattr(one, unit) for one in turns)
            yield Figure(name=f"{name}, {kind}, {side}", value=middle, unit="ms")
    receipts = 100 * statistics.median(one.receipts for one in whole)
    yield Figure(name=f"{name}, receipts and proofs", value=round(receipts, 3), unit="%", goal=RECEIPTS_GOAL)
    storing = 100 * statistics.median(one.storing for one in whole)
    yield Figure(name=f"{name}, storing and announcing chunks", value=round(storing, 3), unit="%")


def figures(*, quick: bool) -> Iterator[Figure]:
    """What serving 64 streams costs; quick leaves SmolLM2 out and runs once."""
    short = asks(STREAMS, seed=_SEED, words=(4, 24), tokens=(12, 36))
    with tempfile.TemporaryDirectory() as folder:
        model = random_llama(Path(folder) / "llama-41m")
        # Twice as many as streams: a turn takes more than ten seconds, and answers join while others end.
        yield from measure(
            "random 41M", model, short if quick else asks(2 * STREAMS, seed=_SEED), 1 if quick else _ROUNDS
        )
    if not quick:
        yield from measure("SmolLM2-135M", smollm2(), asks(STREAMS, seed=_SEED), _ROUNDS)


def main() -> None:
    """The engine's own process: requests of a turn in a line on stdin, the turn in a line on stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bare", type=Path, required=True, metavar="MODEL")
    for turn in serve_bare(parser.parse_args().bare, sys.stdin):
        print(json.dumps(asdict(turn)), flush=True)


if __name__ == "__main__":
    main()

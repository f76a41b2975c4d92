"""A node's engine on a GPU: against its own model run bare, against what the device can do, and to the bit.

The model has the shape of a Llama of 1.1 billion parameters in bfloat16; its weights are random, which
changes no speed. Limits are what the device does in this run: a copy for its memory, a product for its
arithmetic.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from tests.assure.figures import Figure, Part, digits, percent, table
from tests.assure.report import ROOT, write
from tests.bench import node_exact, node_load, node_runs
from tests.bench.node_load import LARGE, Request
from worker.inference.device import gpu_uuid
from worker.inference.ragged import KvCache, RaggedModel
from worker.metering.nvml import NvmlCounters
from worker.models import ModelDir
from worker.proofs.trace import TraceWriter

BATCHES: Final = (1, 8, 64, 256)
_TILE_ROWS: Final = 16
_ROUNDS: Final = 3
_COPY_BYTES: Final = 1 << 30
_PRODUCT: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured: `words` of each prompt, `tokens` of each answer.

    `sequences` are compared bit by bit; `scale` divides what the device is tried with.
    """

    device: str
    model: str = LARGE
    batches: Sequence[int] = BATCHES
    words: int = 128
    tokens: int = 128
    sequences: int = 200
    scale: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bare:
    """Seconds of prompts and tokens of a batch, and of the tokens alone."""

    whole: float
    decoding: float


def figures(plan: Plan, home: Path) -> Iterator[Figure]:
    """All figures of one device."""
    found = node_load.model(plan.model, home)
    copied, computed = _copied(plan), _computed(plan)
    yield Figure(name="memory, copied and written", value=digits(copied / 1e9), unit="GB/s")
    yield Figure(name="products in bfloat16", value=digits(computed / 1e12), unit="Tflop/s")
    for batch in plan.batches:
        yield from _batch(plan, found, batch, copied, computed)
    yield from _exact(plan, found)


def _batch(plan: Plan, found: ModelDir, batch: int, copied: float, computed: float) -> Iterator[Figure]:
    requests = node_load.requests(
        found, batch, answers=(plan.tokens, plan.tokens), prompts=(plan.words, plan.words)
    )
    with torch.inference_mode():
        model = RaggedModel(found.path, device=plan.device, tile_rows=_TILE_ROWS)
        runs = [_bare(model, requests, plan) for _ in range(_ROUNDS)]
    bare = min(runs, key=lambda run: run.whole)
    # A step reads all weights and every sequence's keys and values. Two bytes a weight, two operations.
    weights = sum(file.stat().st_size for file in found.path.glob("*.safetensors"))
    kept = batch * model.bytes_per_token * (plan.words + plan.tokens // 2)
    most = min(batch * copied / (weights + kept), computed / weights)
    del model
    with node_runs.engine(found, slots=batch, device=plan.device, prefix_percent=0) as run:
        run(requests[:1])
        seconds, joules = _engine(run, requests, plan)
    tokens = batch * plan.tokens
    name = f"batch {batch}"
    yield Figure(name=f"{name}, engine", value=digits(tokens / seconds), unit="tok/s")
    yield Figure(name=f"{name}, engine ÷ bare model", value=digits(bare.whole / seconds))
    share = 100 * tokens / bare.decoding / most
    yield Figure(name=f"{name}, bare decoding, share of the device's limit", value=digits(share), unit="%")
    traced = 100 * _traced(plan, batch, found) / seconds
    yield Figure(name=f"{name}, traces, share of the engine's time", value=digits(traced), unit="%")
    if joules is not None:
        yield Figure(name=f"{name}, by NVML", value=digits(joules / tokens), unit="J/tok")


def _exact(plan: Plan, found: ModelDir) -> Iterator[Figure]:
    seen = node_exact.compare(
        found.path,
        plan.sequences,
        tokens=min(24, plan.tokens),
        device=plan.device,
        batches=[batch for batch in plan.batches if batch > 1],
    )
    for way, same in seen.items():
        yield Figure(
            name=f"equal to the bit, {way}", value=percent(same, plan.sequences), unit="%", goal="= 100"
        )


def _bare(model: RaggedModel, requests: Sequence[Request], plan: Plan) -> Bare:
    """The model alone: prompts one after the other, then all sequences at once."""
    began = _now(plan.device)
    caches = [KvCache(len(request.prompt) + plan.tokens) for request in requests]
    scores = [model.prompt_block(cache, one.prompt) for cache, one in zip(caches, requests, strict=True)]
    tokens = torch.stack(scores).argmax(-1).tolist()
    read = _now(plan.device)
    for _ in range(plan.tokens):
        tokens = model.decode(caches, tokens).argmax(-1).tolist()
    ended = _now(plan.device)
    return Bare(whole=ended - began, decoding=ended - read)


def _engine(run: node_runs.Run, requests: Sequence[Request], plan: Plan) -> tuple[float, float | None]:
    """Seconds of the fastest round, and its joules where they can be read."""
    uuid = gpu_uuid(plan.device)
    counters = NvmlCounters.open(uuid) if uuid else None
    rounds: list[tuple[float, float | None]] = []
    for _ in range(_ROUNDS):
        before, began = counters.millijoules() if counters else 0, _now(plan.device)
        written = run(requests)
        seconds = _now(plan.device) - began
        if written != len(requests) * plan.tokens:
            print(f"{written} tokens of {len(requests) * plan.tokens}: some ended early", file=sys.stderr)
        rounds.append((seconds, (counters.millijoules() - before) / 1000 if counters else None))
    return min(rounds, key=lambda one: one[0])


def _traced(plan: Plan, batch: int, found: ModelDir) -> float:
    """Seconds it takes to bring a batch's hidden states over and to commit to them."""
    width = node_load.width(plan.model)
    hidden = torch.randn(batch, width).bfloat16().to(plan.device)
    writers = [TraceWriter() for _ in range(batch)]
    began = _now(plan.device)
    for token in range(plan.tokens):
        rows = hidden.cpu()
        for i, writer in enumerate(writers):
            writer.see(rows[i : i + 1])
            writer.chose(token)
    for writer in writers:
        writer.end()
    return _now(plan.device) - began


def _copied(plan: Plan) -> float:
    """Bytes a second that are read and written by a copy."""
    source = torch.ones(_COPY_BYTES // plan.scale, dtype=torch.uint8, device=plan.device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source), plan.device)


def _computed(plan: Plan) -> float:
    """Operations a second of a product in bfloat16."""
    size = _PRODUCT // plan.scale
    one = torch.ones(size, size, dtype=torch.bfloat16, device=plan.device)
    return 2 * size**3 / _fastest(lambda: one @ one, plan.device)


def _fastest(work: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(2 * _ROUNDS):
        began = _now(device)
        work()
        seconds.append(_now(device) - began)
    return min(seconds)


def _now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def main(arguments: Iterable[str]) -> int:
    """Prints the table, writes `build/bench-gpu.json` and `docs/results/gpu-NAME.json`; 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="scripts/bench-gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="torch device")
    parser.add_argument("--batch", type=int, nargs="+", default=BATCHES, help="sequences at once")
    options = parser.parse_args(list(arguments))
    if not torch.cuda.is_available():
        print("There is no GPU that torch can use here: nothing was measured.", file=sys.stderr)
        return 2
    plan = Plan(device=options.device, batches=options.batch)
    name = torch.cuda.get_device_name(torch.device(options.device))
    with tempfile.TemporaryDirectory() as home:
        began = time.monotonic()
        found = tuple(figures(plan, Path(home)))
        parts = [Part(name=name, figures=found, seconds=time.monotonic() - began)]
    print(table(parts))
    write("bench-gpu", parts)
    kept = write(f"gpu-{name.lower().replace(' ', '-')}", parts, folder="docs/results")
    print(f"written to build/bench-gpu.json, {kept.relative_to(ROOT)}")
    return 0 if all(part.met for part in parts) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

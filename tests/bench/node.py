"""How fast, how exact and how sure a node is: its engines against transformers, its serving against them.

Speed is tokens per CPU second of the process, so neighbours on the machine matter little; every ratio is of
runs that alternate, and of equal requests. Ours runs as it is served: exact mode on, detokenised, in chunks,
a thread for each request. The others are given token ids and the settings that were best for them here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from tests.assure.figures import Figure, Part, digits, percent, table
from tests.assure.report import ROOT, write
from tests.bench import failover, node_exact, node_load, node_runs, overhead
from tests.bench.node_load import MODELS, REAL, Request
from tests.bench.node_runs import Asked, Rate, Run, rate

# How each works, and on what.
Contenders = dict[str, tuple[Callable[[Sequence[Asked]], int], Sequence[Asked]]]
# Pages and batch sizes of transformers' continuous batching; the best for each model counts.
_PAGES: Final = ((32, 256), (256, 256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    requests: int
    answers: tuple[int, int]
    prompts: tuple[int, int]
    singles: int
    rounds: int
    texts: int
    sequences: int


FULL: Final = Size(
    requests=64, answers=(16, 128), prompts=(16, 192), singles=8, rounds=3, texts=512, sequences=256
)
QUICK: Final = Size(
    requests=64, answers=(8, 24), prompts=(8, 40), singles=2, rounds=1, texts=96, sequences=12
)


def generation(name: str, size: Size, home: Path) -> Iterator[Figure]:
    """One model: ours, ours without tiles, and transformers both ways."""
    found = node_load.model(name, home)
    requests = node_load.requests(found, size.requests, answers=size.answers, prompts=size.prompts)
    with (
        node_runs.engine(found) as exact,
        node_runs.engine(found, tile_rows=0) as loose,
        node_runs.network(found) as network,
    ):
        single = node_runs.one_by_one(network)
        batched, pages = _best_pages(network, requests)
        alone = requests[: size.singles]
        contenders: dict[str, tuple[Run, Sequence[Request]]] = {
            "exact": (exact, requests),
            "loose": (loose, requests),
            "batched": (batched, requests),
        }
        if name == REAL:
            contenders["single"] = (_best_threads(single, alone[:1]), alone)
        rates = _alternate(contenders, size.rounds)
    yield Figure(name="exact mode, 64 concurrent", value=digits(rates["exact"]), unit="tok/cpu-s")
    yield Figure(
        name=f"transformers continuous, pages of {pages[0]}",
        value=digits(rates["batched"]),
        unit="tok/cpu-s",
    )
    ratio = rates["exact"] / rates["batched"]
    yield Figure(name="ours ÷ transformers continuous", value=digits(ratio), goal="≥ 1.05")
    if name == REAL:
        yield Figure(
            name="transformers generate, one at a time", value=digits(rates["single"]), unit="tok/cpu-s"
        )
        yield Figure(name="ours ÷ one at a time", value=digits(rates["exact"] / rates["single"]), goal="≥ 6")
    cost = 100 * (1 - rates["exact"] / rates["loose"])
    yield Figure(name="cost of exact mode", value=digits(cost), unit="%", goal="≤ 15")


def embeddings(size: Size) -> Iterator[Figure]:
    """Length-sorted batches against one text at a time."""
    texts = node_load.texts(size.texts)
    for dtype, goal in ((torch.float32, "≥ 1.8"), (torch.bfloat16, "≥ 4")):
        single, sorted_ = node_runs.embedders(dtype)
        rates = _alternate(
            {"single": (_best_threads(single, texts[:16]), texts), "sorted": (sorted_, texts)}, size.rounds
        )
        kind = "fp32" if dtype is torch.float32 else "bf16"
        yield Figure(
            name=f"{kind}, transformers, one by one", value=digits(rates["single"]), unit="texts/cpu-s"
        )
        yield Figure(name=f"{kind}, length-sorted", value=digits(rates["sorted"]), unit="texts/cpu-s")
        ratio = rates["sorted"] / rates["single"]
        yield Figure(name=f"{kind}, length-sorted ÷ one by one", value=digits(ratio), goal=goal)


def exactness(size: Size, home: Path) -> Iterator[Figure]:
    """Keys, values and scores of whole sequences, bit by bit."""
    equal = whole = 0
    for name, share in zip(MODELS, (2, 4, 6), strict=True):
        found = node_load.model(name, home)
        count = (
            size.sequences // share if size is QUICK else size.sequences // (share - 1 if share > 2 else 2)
        )
        seen = node_exact.compare(found.path, count, tokens=8 if size is QUICK else 24)
        for way, same in seen.items():
            yield Figure(name=f"{name}, {way}", value=percent(same, count), unit="%", goal="= 100")
        equal += min(seen.values())
        whole += count
    yield Figure(name="sequences compared", value=whole, goal="≥ 200" if size is FULL else "")
    yield Figure(name="equal to the bit in every way", value=percent(equal, whole), unit="%", goal="= 100")


def main(arguments: Iterable[str]) -> int:
    """Prints the table and writes `build/bench-node.json`; 0 when every goal is met."""
    parser = argparse.ArgumentParser(prog="scripts/bench-node", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter requests")
    parser.add_argument("--only", help="one part: a model's name, embed, exact, serving or failover")
    options = parser.parse_args(list(arguments))
    size = QUICK if options.quick else FULL
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        home = Path(os.environ.get("WATT_BENCH_MODELS_DIR") or made)
        jobs: dict[str, Callable[[], Iterator[Figure]]] = {
            **{name: lambda name=name: generation(name, size, home) for name in MODELS},  # type: ignore[misc]
            "embed": lambda: embeddings(size),
            "exact": lambda: exactness(size, home),
            "serving": lambda: overhead.figures(quick=options.quick),
            "failover": lambda: failover.figures(quick=options.quick),
        }
        parts = [_part(name, job) for name, job in jobs.items() if options.only in (None, name)]
    print(table(parts))
    print(f"written to {write('bench-node', parts).relative_to(ROOT)}")
    return 0 if all(part.met for part in parts) else 1


def _part(name: str, job: Callable[[], Iterator[Figure]]) -> Part:
    begin = time.monotonic()
    figures = []
    for figure in job():
        # As they come: the whole takes long.
        print(f"  {name}: {figure.name} {figure.value:g} {figure.unit}", file=sys.stderr)
        figures.append(figure)
    return Part(name=name, figures=tuple(figures), seconds=time.monotonic() - begin)


def _alternate(contenders: Contenders[Asked], rounds: int) -> dict[str, float]:
    """Tokens or texts per CPU second of each, the median of rounds in which everybody has a turn."""
    seen: dict[str, list[Rate]] = {name: [] for name in contenders}
    for run, asked in contenders.values():
        run(asked[:2])
    for _ in range(rounds):
        for name, (run, asked) in contenders.items():
            seen[name].append(rate(run, asked))
    return {name: statistics.median(one.per_second for one in rates) for name, rates in seen.items()}


def _best_pages(network: Any, requests: Sequence[Request]) -> tuple[Run, tuple[int, int]]:
    some = requests[: len(requests) // 4]
    runs = {pages: node_runs.continuous(network, *pages) for pages in _PAGES}
    best = max(runs, key=lambda pages: rate(runs[pages], some).per_second)
    return runs[best], best


def _best_threads(
    run: Callable[[Sequence[Asked]], int], asked: Sequence[Asked]
) -> Callable[[Sequence[Asked]], int]:
    """The run with the number of threads that did most in a CPU second."""
    run(asked[:1])
    found = {threads: rate(_with(run, threads), asked).per_second for threads in {1, os.cpu_count() or 1}}
    return _with(run, max(found, key=lambda threads: found[threads]))


def _with(run: Callable[[Sequence[Asked]], int], threads: int) -> Callable[[Sequence[Asked]], int]:
    def counted(asked: Sequence[Asked]) -> int:
        torch.set_num_threads(threads)
        try:
            return run(asked)
        finally:
            torch.set_num_threads(1)

    return counted


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

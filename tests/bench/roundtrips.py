"""How long a buyer waits: a chat call through our market, against FastAPI and Celery with the same engine.

The same payload goes to both, in blocks that take turns, over connections that are kept; both must answer
with the same text. What ours does besides: it checks the key, picks an offer, reserves the money, signs an
order, has a node check it, stores every step on two sides that need not trust each other, and answers with a
signed receipt that it has checked and paid for. See `bare_api` for what the other side does store.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.assure.figures import Figure, digits
from tests.bench import node_load
from tests.bench.serving import percentile
from tests.bench.sides import Side, both

GOALS: Final = {50: "≤ 1.5", 99: "≤ 2"}
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A payload, and how often it is asked: `calls` of each side, a block of `block` at a time."""

    model: str
    words: int
    tokens: int
    calls: int
    block: int

    @property
    def name(self) -> str:
        """As the table says it."""
        return f"{self.model}, {self.tokens} token{'s' * (self.tokens > 1)}"


# What a market is for, and what hides nothing of the way: a model that answers within milliseconds.
FULL: Final = (
    Load(model=node_load.REAL, words=12, tokens=32, calls=48, block=12),
    Load(model=node_load.SMALL, words=12, tokens=32, calls=200, block=40),
    Load(model=node_load.SMALL, words=12, tokens=1, calls=200, block=40),
)
QUICK: Final = (Load(model=node_load.SMALL, words=12, tokens=1, calls=8, block=8),)


def figures(*, quick: bool) -> Iterator[Figure]:
    """Seconds of both sides and their ratios: one call at a time, and several at once."""
    for name, loads in itertools.groupby(QUICK if quick else FULL, lambda load: load.model):
        with tempfile.TemporaryDirectory() as folder:
            model = node_load.model(name, Path(folder))
            with both(Path(folder) / "market", model.path) as sides:
                for side in sides:
                    yield Figure(name=f"{name}, processes, {side.name}", value=side.processes)
                for load, at_once in itertools.product(loads, (1, AT_ONCE)):
                    found = asyncio.run(_measure(sides, load, at_once))
                    yield from _figures(found, load, at_once)


def _figures(found: dict[str, list[float]], load: Load, at_once: int) -> Iterator[Figure]:
    name = f"{load.name}, {at_once} at once"
    for percent, goal in GOALS.items():
        ours, bare = percentile(found["ours"], percent), percentile(found["bare"], percent)
        yield Figure(name=f"{name}, p{percent} ours", value=digits(1e3 * ours), unit="ms")
        yield Figure(name=f"{name}, p{percent} bare", value=digits(1e3 * bare), unit="ms")
        yield Figure(name=f"{name}, p{percent} ours ÷ bare", value=digits(ours / bare), goal=goal)


async def _measure(sides: tuple[Side, Side], load: Load, at_once: int) -> dict[str, list[float]]:
    """Seconds of every call by side; what comes before the first block is not counted."""
    found: dict[str, list[float]] = {side.name: [] for side in sides}
    texts: set[str] = set()
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as http:
        for side in sides:
            await _block(http, side, load, at_once, load.block, texts)
        for _ in range(load.calls // load.block):
            for side in sides:
                found[side.name] += await _block(http, side, load, at_once, load.block, texts)
            print(f"{load.name}, {at_once} at once: {_medians(found)}", file=sys.stderr)
    if len(texts) != 1:
        raise AssertionError(f"the sides answer differently: {sorted(texts)}")
    return found


def _medians(found: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {1e3 * percentile(seconds, 50):.1f} ms" for name, seconds in found.items())


async def _block(
    http: httpx2.AsyncClient, side: Side, load: Load, at_once: int, calls: int, texts: set[str]
) -> list[float]:
    seconds: list[float] = []
    left = iter(range(calls))

    async def buyer() -> None:
        for _ in left:
            began = time.perf_counter()
            answer = await http.post(
                f"{side.url}/v1/chat/completions",
                json=_body(side, load),
                headers={"authorization": f"Bearer {side.key}"},
            )
            seconds.append(time.perf_counter() - began)
            answer.raise_for_status()
            texts.add(answer.json()["choices"][0]["message"]["content"])

    await asyncio.gather(*(buyer() for _ in range(at_once)))
    return seconds


def _body(side: Side, load: Load) -> dict[str, Any]:
    text = " ".join(f"w{7 * number}" for number in range(load.words))
    return {
        "model": side.model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": load.tokens,
        "temperature": 0,
    }

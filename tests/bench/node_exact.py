"""Whether a sequence's bits are the same alone, in batches, on more threads, and when computed anew."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from worker.inference.ragged import KvCache, RaggedModel

BATCHES: Final = (4, 16, 64)
_THREADED: Final = 16
_SEED: Final = 90_017
_PROMPT_BLOCK: Final = 64

Bits = list[Tensor]


def compare(
    path: Path, count: int, *, tokens: int, device: str = "cpu", batches: Sequence[int] = BATCHES
) -> dict[str, int]:
    """How many of `count` sequences give the same bits as alone, for each other way of computing them."""
    draw = random.Random(_SEED)  # noqa: S311  # for lengths and words
    with torch.inference_mode():
        model = RaggedModel(path, device=device, tile_rows=16)
        words = model.vocabulary
        prompts = [[draw.randrange(words) for _ in range(draw.randint(8, 140))] for _ in range(count)]
        answers = [[draw.randrange(words) for _ in range(tokens)] for _ in range(count)]
        alone = _in_batches(model, prompts, answers, 1)
        ways: dict[str, Callable[[], list[Bits]]] = {
            f"batches of {size}": partial(_in_batches, model, prompts, answers, size) for size in batches
        }
        if device == "cpu" and _THREADED in batches:
            ways[f"batches of {_THREADED}, 2 threads"] = partial(_threaded, model, prompts, answers)
        ways["replayed"] = lambda: [_replayed(model, *pair) for pair in zip(prompts, answers, strict=True)]
        return {
            way: sum(_same(one, other) for one, other in zip(alone, run(), strict=True))
            for way, run in ways.items()
        }


def _in_batches(
    model: RaggedModel, prompts: Sequence[list[int]], answers: Sequence[list[int]], size: int
) -> list[Bits]:
    found: list[Bits] = []
    for start in range(0, len(prompts), size):
        caches = [_read(model, prompt, len(answers[0])) for prompt in prompts[start : start + size]]
        # Places that are left over are taken by sequences that nobody looks at.
        extra = [_read(model, prompts[i % len(prompts)], len(answers[0])) for i in range(size - len(caches))]
        for place in range(len(answers[0])):
            given = [answer[place] for answer in answers[start : start + size]] + [place] * len(extra)
            scores = model.decode([*caches, *extra], given)
        found += [_bits(cache, row) for cache, row in zip(caches, scores, strict=False)]
    return found


def _threaded(model: RaggedModel, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[Bits]:
    torch.set_num_threads(2)
    try:
        return _in_batches(model, prompts, answers, _THREADED)
    finally:
        torch.set_num_threads(1)


def _replayed(model: RaggedModel, prompt: list[int], answer: list[int]) -> Bits:
    cache = _read(model, prompt, len(answer))
    return _bits(cache, model.replay(cache, answer))


def _read(model: RaggedModel, prompt: list[int], room: int) -> KvCache:
    cache = KvCache(len(prompt) + room)
    for start in range(0, len(prompt), _PROMPT_BLOCK):
        model.prompt_block(cache, prompt[start : start + _PROMPT_BLOCK])
    return cache


def _bits(cache: KvCache, scores: Tensor) -> Bits:
    stored = [one for layer in range(cache.layers) for one in cache.stored(layer)]
    return [one.clone() for one in (*stored, scores)]


def _same(mine: Bits, other: Bits) -> bool:
    return all(torch.equal(one, another) for one, another in zip(mine, other, strict=True))

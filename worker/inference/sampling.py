"""Picks tokens so that anybody can check the pick: counter-based Gumbel-max.

The noise of a token is an integer hash of (seed, position, token id) and nothing else. There is no
generator state, so a draw does not depend on the batch, on earlier draws, or on the machine, and an
auditor re-derives any single one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

_WORD: Final = (1 << 64) - 1
# Nuclei are mostly tiny: look among this many candidates before sorting a whole vocabulary.
_LIKELY: Final = 256


def choose(
    logits: npt.NDArray[np.float32],
    *,
    temperature_milli: int,
    top_p_milli: int,
    seed: int,
    position: int,
) -> int:
    """Token id for one row of logits, shape `(vocabulary,)`.

    Args:
        logits: Scores, not yet divided by the temperature.
        temperature_milli: Thousandths; 0 takes the highest score, the lowest id among equals.
        top_p_milli: Thousandths of probability the kept tokens must reach; 1000 keeps all.
        seed: 64 bits.
        position: Index of the token in the answer, from 0.
    """
    if temperature_milli == 0:
        return int(np.argmax(logits))
    scores = logits.astype(np.float64) * (1000.0 / temperature_milli)
    ids = np.arange(len(scores)) if top_p_milli >= 1000 else nucleus(scores, top_p_milli)
    return int(ids[np.argmax(scores[ids] + gumbel(seed, position, ids))])


def nucleus(scores: Floats, top_p_milli: int) -> Ids:
    """Ids of the fewest most likely tokens that together reach `top_p_milli`, likeliest first."""
    weights = np.exp(scores - scores.max())
    wanted = weights.sum() * (top_p_milli / 1000.0)
    if len(scores) > _LIKELY:
        few = np.sort(np.argpartition(scores, -_LIKELY)[-_LIKELY:])
        kept = _cut(few, weights, wanted)
        # The last of the few may tie with tokens left out: then only the full order can tell.
        if weights[few[weights[few].argmin()]] < weights[kept[-1]]:
            return kept
    return _cut(np.arange(len(scores)), weights, wanted)


def gumbel(seed: int, position: int, ids: Ids) -> Floats:
    """Gumbel noise of tokens `ids`; 32 bits each, the same on every machine."""
    key = _mix64(_mix64(seed) ^ position)
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    bits = _mix32(_mix32(ids.astype(np.uint32) ^ low) + high)
    # Middle of the interval: never 0 or 1, where the logarithms end.
    uniform = (bits.astype(np.float64) + 0.5) / 2.0**32
    noise: Floats = -np.log(-np.log(uniform))
    return noise


def _cut(ids: Ids, weights: Floats, wanted: float) -> Ids:
    order = ids[np.argsort(-weights[ids], kind="stable")]
    count = int(np.searchsorted(np.cumsum(weights[order]), wanted)) + 1
    kept: Ids = order[:count]
    return kept


def _mix64(value: int) -> int:
    """Finaliser of SplitMix64."""
    value = (value + 0x9E3779B97F4A7C15) & _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)


def _mix32(value: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """The `lowbias32` integer hash; multiplication wraps."""
    value = (value ^ (value >> np.uint32(16))) * np.uint32(0x7FEB352D)
    value = (value ^ (value >> np.uint32(15))) * np.uint32(0x846CA68B)
    return value ^ (value >> np.uint32(16))

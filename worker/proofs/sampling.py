"""Picks tokens so that anybody can check the pick: counter-based Gumbel-max.

The noise of a token is an integer hash of (seed, position, token id) and nothing else. There is no
generator state, so a draw does not depend on the batch, on earlier draws, or on the machine, and an
auditor re-derives any single one.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32] | Floats

SCHEME: Final = "gumbel1"
_WORD: Final = (1 << 64) - 1
_HALF: Final = (1 << 32) - 1
# Shifts and factors of `lowbias32`.
_ROUNDS: Final = ((16, 0x7FEB352D), (15, 0x846CA68B))
# Nuclei are mostly small: look among so many candidates before sorting a whole vocabulary.
_LIKELY: Final = (256, 4096)
# Room for the rounding of single precision in an exponent between -30 and 30.
_ROUNDING: Final = 1e-3
# Of 32 bits noise is never more than -log(-log(1 - 2^-33)), 22.874; the rest is room for rounding.
_MOST_NOISE: Final = 22.9


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
    factor = 1000.0 / temperature_milli
    if top_p_milli >= 1000:
        return highest(logits, seed, position, factor=factor)[0]
    scores = logits.astype(np.float64) * factor
    ids = nucleus(scores, top_p_milli)
    return int(ids[np.argmax(scores[ids] + gumbel(seed, position, ids))])


def highest(
    logits: Scores, seed: int, position: int, *, factor: float = 1.0, guess: int | None = None
) -> tuple[int, float]:
    """Token with the highest sum of score and noise, the lowest id among equals; and that sum.

    Scores are `logits` times `factor`. A right `guess` makes it faster and a wrong one slower.
    """
    rival = int(np.argmax(logits)) if guess is None or not np.isfinite(logits[guess]) else guess
    if not np.isfinite(logits[rival]):
        # A network that has broken down gives no numbers; whoever draws must not break down as well.
        return rival, float(np.nan)
    ids = contenders(logits, rival, factor, seed, position)
    sums = logits[ids].astype(np.float64) * factor + gumbel(seed, position, ids)
    won = int(np.argmax(sums))
    return int(ids[won]), float(sums[won])


def contenders(logits: Scores, rival: int, factor: float, seed: int, position: int) -> Ids:
    """Ids, ascending, of the few tokens that may win: all others lose to `rival` for certain.

    Beating a sum `b` takes noise of at least `b - score`: more than there is, for most of a vocabulary. Of
    the rest, it takes a uniform number of at least `exp(-exp(score - b))`, which is never below
    `1 - exp(score - b)`. So integers and one exponential in single precision decide, with room for its
    rounding, and logarithms are for contenders only.
    """
    lead = _noise(_hash(seed, position, rival))
    least = float(logits[rival]) - (_MOST_NOISE - lead) / factor
    ids = np.flatnonzero(logits >= logits.dtype.type(least))
    behind = (logits[ids] - logits[rival]) * np.float32(factor)
    with np.errstate(over="ignore"):
        chance = np.exp(behind + np.float32(_ROUNDING - lead)) * np.float32(2.0**32) + np.float32(1)
    # What is missing to 1, in units of 2^-32; floats are dense where it is small.
    missing = ~hash_bits(seed, position, ids)
    found: Ids = ids[missing.astype(np.float32) <= chance]
    return found


def nucleus(scores: Floats, top_p_milli: int) -> Ids:
    """Ids of the fewest most likely tokens that together reach `top_p_milli`, likeliest first."""
    weights = np.exp(scores - scores.max())
    wanted = weights.sum() * (top_p_milli / 1000.0)
    for likely in _LIKELY:
        if len(scores) > likely:
            few = np.sort(np.argpartition(scores, -likely)[-likely:])
            kept = _cut(few, weights, wanted)
            # The last of the few may tie with tokens left out: then only the full order can tell.
            if weights[few].min() < weights[kept[-1]]:
                return kept
    return _cut(np.arange(len(scores)), weights, wanted)


def gumbel(seed: int, position: int, ids: Ids) -> Floats:
    """Gumbel noise of tokens `ids`; 32 bits each, the same on every machine."""
    # Middle of the interval: never 0 or 1, where the logarithms end.
    uniform = (hash_bits(seed, position, ids).astype(np.float64) + 0.5) / 2.0**32
    noise: Floats = -np.log(-np.log(uniform))
    return noise


def hash_bits(seed: int, position: int, ids: Ids) -> npt.NDArray[np.uint32]:
    """32 bits of each id; the noise is made of them."""
    return _hash_in_place(seed, position, ids.astype(np.uint32))


def _noise(bits: int) -> float:
    """As `gumbel` of one token, but for the last bits of a logarithm."""
    return -math.log(-math.log((bits + 0.5) / 2.0**32))


def _hash(seed: int, position: int, token: int) -> int:
    """As `hash_bits` of one token, at a tenth of the price of an array."""
    key = _key(seed, position)
    inner = _scrambled(token ^ (key & _HALF))
    return _scrambled((inner + (key >> 32)) & _HALF)


def _key(seed: int, position: int) -> int:
    return _mix64(_mix64(seed) ^ position)


def _hash_in_place(seed: int, position: int, ids: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    key = _key(seed, position)
    low, high = np.uint32(key & _HALF), np.uint32(key >> 32)
    ids ^= low
    _mix32(ids)
    ids += high
    _mix32(ids)
    return ids


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


def _scrambled(value: int) -> int:
    """The `lowbias32` integer hash."""
    for shift, factor in _ROUNDS:
        value ^= value >> shift
        value = value * factor & _HALF
    return value ^ (value >> 16)


def _mix32(value: npt.NDArray[np.uint32]) -> None:
    """The same, in place; multiplication wraps."""
    for shift, factor in _ROUNDS:
        value ^= value >> np.uint32(shift)
        value *= np.uint32(factor)
    value ^= value >> np.uint32(16)

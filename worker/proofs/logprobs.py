"""Log-probabilities as whole numbers, which every machine with the same scores finds alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from marketplace.protocol.payloads import LEAST_LOGPROB_MICRO

_MICRO = 1e6


def logprobs(logits: npt.NDArray[np.float32], token: int, top: int) -> list[tuple[int, int]]:
    """Ids and millionths of natural log-probabilities: of `token`, then of the `top` likeliest in order.

    Args:
        logits: Scores of the vocabulary, `(vocabulary,)`, not yet divided by a temperature.
        token: The id that was chosen; it is listed again among the likeliest if it is one.
        top: How many likeliest; of equals, the lowest id comes first.
    """
    scores = logits.astype(np.float64)
    high = scores.max()
    total = high + np.log(np.exp(scores - high).sum())
    ids = [token, *_likeliest(scores, top)]
    return [(id_, _micro(float(scores[id_] - total))) for id_ in ids]


def _likeliest(scores: npt.NDArray[np.float64], top: int) -> list[int]:
    count = min(top, len(scores))
    if not count:
        return []
    # Whoever ties with the last is a candidate too, so that ids decide and not the order of a partition.
    least = np.partition(scores, -count)[-count]
    ids = np.flatnonzero(scores >= least)
    return [int(id_) for id_ in ids[np.lexsort((ids, -scores[ids]))][:count]]


def _micro(logprob: float) -> int:
    # A network that has broken down gives no numbers; telling so must not break down as well.
    if not np.isfinite(logprob):
        return LEAST_LOGPROB_MICRO
    return min(0, max(LEAST_LOGPROB_MICRO, round(logprob * _MICRO)))

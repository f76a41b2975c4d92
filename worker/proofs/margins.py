"""How far an auditor's own scores are from the choice that a node claims (Token-DiFR, arXiv 2511.20621).

A margin is in units of the model's scores (logits), whatever the temperature: by how much scores must be off
for the claimed token to be the one that was drawn. Zero when our own draw gives that token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from worker.proofs.sampling import Floats, gumbel, highest, nucleus

_TINY: Final = 1e-12


def margins(
    logits: npt.NDArray[np.float32],
    token_ids: Sequence[int],
    *,
    temperature_milli: int,
    top_p_milli: int,
    seed: int,
) -> Floats:
    """Margin of each token of an answer, `(tokens,)`; infinite for an id outside of the vocabulary.

    Args:
        logits: Our scores, `(tokens, vocabulary)`.
        token_ids: What the node says it drew.
        temperature_milli: As `choose` takes it.
        top_p_milli: As `choose` takes it.
        seed: As `choose` takes it.
    """
    found = np.empty(len(token_ids))
    for position, token in enumerate(token_ids):
        row = logits[position]
        if token >= len(row):
            found[position] = np.inf
        elif temperature_milli == 0:
            found[position] = float(row.max()) - float(row[token])
        elif top_p_milli >= 1000:
            factor = 1000.0 / temperature_milli
            # An honest node's token is the one: then it is the rival that leaves the fewest contenders.
            _, best = highest(row, seed, position, factor=factor, guess=token)
            own = float(row[token]) * factor + gumbel(seed, position, np.array([token]))[0]
            found[position] = max(0.0, best - own) * temperature_milli / 1000.0
        else:
            scores = row.astype(np.float64) * (1000.0 / temperature_milli)
            scaled = _nucleus_margin(scores, token, top_p_milli, seed, position)
            found[position] = scaled * temperature_milli / 1000.0
    return found


def _nucleus_margin(scores: Floats, token: int, top_p_milli: int, seed: int, position: int) -> float:
    """Margin among the tokens top-p keeps, where who is kept is itself in doubt at the edge.

    A rival counts for as much as it takes to be beaten, or to be left out, whichever is less; a claimed token
    that we would leave out for as much as it takes to be kept. Out and in there are two ways: the likelier
    ones gain or lose weight, or two at the edge change places.
    """
    kept = nucleus(scores, top_p_milli)
    weights = np.exp(scores - scores.max())
    total = weights.sum()
    before = np.cumsum(weights[kept]) - weights[kept]
    # The first is kept whatever the others weigh.
    leaving = _log_odds(top_p_milli / 1000.0) - _log_odds(before / total)
    leaving[0] = np.inf
    out = np.ones(len(scores), dtype=bool)
    out[kept] = False
    if out.any():
        leaving = np.minimum(leaving, scores[kept] - scores[out].max())
    own = scores[token] + gumbel(seed, position, np.array([token]))[0]
    ahead = scores[kept] + gumbel(seed, position, kept) - own
    ahead[kept == token] = 0.0
    margin = float(np.minimum(ahead, leaving).max())
    if token not in kept:
        likelier = weights[weights > weights[token]].sum() / total
        entering = float(_log_odds(likelier) - _log_odds(top_p_milli / 1000.0))
        margin = max(margin, min(entering, float(scores[kept[-1]] - scores[token])))
    return max(0.0, margin)


def _log_odds(share: Floats | float) -> Floats:
    clipped = np.clip(share, _TINY, 1 - _TINY)
    odds: Floats = np.log(clipped) - np.log1p(-clipped)
    return odds

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.proofs.sampling import choose, contenders, gumbel, highest, nucleus

LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.07, 0.03], dtype=np.float32))


def pick(logits=LOGITS, *, temperature=1000, top_p=1000, seed=1, position=0) -> int:
    return choose(logits, temperature_milli=temperature, top_p_milli=top_p, seed=seed, position=position)


def test_temperature_zero_takes_the_highest_and_the_lowest_id_among_equals() -> None:
    assert pick(np.array([1, 3, 3, 2], dtype=np.float32), temperature=0) == 1


def test_same_seed_and_position_give_the_same_token() -> None:
    assert [pick(position=i) for i in range(50)] == [pick(position=i) for i in range(50)]
    assert [pick(position=i) for i in range(50)] != [pick(seed=2, position=i) for i in range(50)]


def test_draws_follow_the_probabilities() -> None:
    draws = 20_000
    seen = Counter(pick(position=i) for i in range(draws))
    for token, share in enumerate((0.5, 0.25, 0.15, 0.07, 0.03)):
        assert abs(seen[token] / draws - share) < 4 * (share * (1 - share) / draws) ** 0.5


def test_low_temperature_sharpens() -> None:
    seen = Counter(pick(temperature=250, position=i) for i in range(2000))
    assert seen[0] > 1800


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    scores = LOGITS.astype(np.float64)
    assert list(nucleus(scores, 500)) == [0]
    assert list(nucleus(scores, 501)) == [0, 1]
    assert list(nucleus(scores, 899)) == [0, 1, 2]
    assert {pick(top_p=600, position=i) for i in range(300)} == {0, 1}


@given(st.integers(1, 999), st.integers(0, 2**32), st.sampled_from([0.1, 1.0, 8.0]), st.booleans())
def test_nucleus_shortcut_agrees_with_the_full_order(
    top_p: int, seed: int, spread: float, rounded: bool
) -> None:
    scores = np.random.default_rng(seed).normal(0, spread, 2000)
    if rounded:  # as from bfloat16: many equal scores
        scores = np.round(scores * 4) / 4
    weights = np.exp(scores - scores.max())
    order = np.argsort(-weights, kind="stable")
    count = int(np.searchsorted(np.cumsum(weights[order]), weights.sum() * (top_p / 1000))) + 1
    found = nucleus(scores, top_p)
    assert len(found) == count
    assert list(found) == list(order[:count])


def test_noise_of_a_token_does_not_depend_on_which_others_are_asked_for() -> None:
    everything = gumbel(9, 4, np.arange(1000))
    assert (gumbel(9, 4, np.array([3, 999])) == everything[[3, 999]]).all()


@given(st.integers(0, 2**64 - 1), st.sampled_from([0.1, 1.0, 8.0, 40.0]), st.sampled_from([1, 50, 700, 2000]))
def test_only_tokens_that_cannot_win_are_left_out(seed: int, spread: float, temperature: int) -> None:
    logits = np.random.default_rng(seed % 2**32).normal(0, spread, 5000).astype(np.float32)
    everything = np.arange(len(logits))
    sums = logits.astype(np.float64) * (1000.0 / temperature) + gumbel(seed, 3, everything)
    assert pick(logits, temperature=temperature, seed=seed, position=3) == int(np.argmax(sums))
    won = int(np.argmax(sums))
    for rival in (won, seed % 5000):
        found = highest(logits, seed, 3, factor=1000.0 / temperature, guess=rival)
        assert found == (won, sums[won])
    few = contenders(logits, int(np.argmax(logits)), 1000.0 / temperature, seed, 3)
    assert np.argmax(sums) in few
    if spread >= 8:
        assert len(few) < len(logits) / 2


def test_noise_is_pinned_so_that_auditors_elsewhere_find_the_same() -> None:
    noise = gumbel((1 << 64) - 1, 7, np.array([0, 1, 49151]))
    assert [round(float(value), 6) for value in noise] == PINNED


PINNED = [0.212023, 1.148396, 0.778882]

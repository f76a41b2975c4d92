"""How far off scores must be for a claimed token to be the one that was drawn."""

from __future__ import annotations

import numpy as np
import pytest

from worker.proofs.margins import margins
from worker.proofs.sampling import choose, gumbel, highest

VOCABULARY = 400


def scores(count: int, *, spread: float = 3.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (count, VOCABULARY)).astype(np.float32)


def draw(rows: np.ndarray, **how: int) -> list[int]:
    return [choose(row, position=place, **how) for place, row in enumerate(rows)]


HOW = [
    {"temperature_milli": temperature, "top_p_milli": top_p, "seed": 9}
    for temperature in (0, 300, 1000, 2000)
    for top_p in (1000, 900, 300)
]


@pytest.mark.parametrize("how", HOW)
def test_own_draws_have_no_margin(how: dict[str, int]) -> None:
    rows = scores(60)
    assert not margins(rows, draw(rows, **how), **how).any()


@pytest.mark.parametrize("how", HOW)
def test_draws_from_scores_a_little_off_have_margins_a_little_above_zero(how: dict[str, int]) -> None:
    rows = scores(300, spread=1.0)
    noise = np.random.default_rng(2).normal(0, 0.01, rows.shape).astype(np.float32)
    found = margins(rows, draw(rows + noise, **how), **how)
    assert found.max() < 0.12
    assert found.mean() < 0.01


def test_other_seed_other_temperature_and_greedy_have_large_margins() -> None:
    rows = scores(300, spread=2.0)
    how = {"temperature_milli": 900, "top_p_milli": 1000, "seed": 9}
    honest = margins(rows, draw(rows, **how), **how)
    assert honest.mean() == 0
    for change in ({"seed": 10}, {"temperature_milli": 0}, {"temperature_milli": 500}):
        assert margins(rows, draw(rows, **how | change), **how).mean() > 0.05


def test_token_left_out_by_top_p_costs_what_it_takes_to_be_kept() -> None:
    rows = np.full((1, VOCABULARY), -20, np.float32)
    rows[0, :3] = (5.0, 4.0, -2.0)
    how = {"temperature_milli": 1000, "top_p_milli": 900, "seed": 3}
    out = margins(rows, [2], **how)[0]
    assert out > 4


def test_greedy_margin_is_the_gap_to_the_highest_score() -> None:
    rows = np.array([[1.0, 3.5, 3.0]], np.float32)
    how = {"temperature_milli": 0, "top_p_milli": 1000, "seed": 0}
    assert margins(rows, [2], **how)[0] == pytest.approx(0.5)


def test_id_outside_of_the_vocabulary_is_infinitely_far() -> None:
    assert margins(scores(1), [VOCABULARY], temperature_milli=0, top_p_milli=1000, seed=0)[0] == np.inf


def test_token_that_our_scores_rule_out_is_infinitely_far() -> None:
    rows = scores(1)
    rows[0, 7] = -np.inf
    assert margins(rows, [7], temperature_milli=900, top_p_milli=1000, seed=0)[0] == np.inf


def test_scores_that_are_no_numbers_end_in_a_draw_and_not_in_an_error() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        row = scores(1)[0]
        row[7] = bad
        assert 0 <= choose(row, temperature_milli=900, top_p_milli=1000, seed=1, position=0) < VOCABULARY


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 12.0])
@pytest.mark.parametrize("size", [1, 3, 258, 50_000])
def test_shortcut_to_the_highest_sum_finds_the_one_of_the_whole_vocabulary(spread: float, size: int) -> None:
    rng = np.random.default_rng(8)
    for position in range(12):
        # Rounded, so that equal scores occur.
        row = np.round(rng.normal(0, spread, size), 1)
        sums = row + gumbel(5, position, np.arange(size))
        assert highest(row, 5, position) == (int(np.argmax(sums)), float(sums.max()))

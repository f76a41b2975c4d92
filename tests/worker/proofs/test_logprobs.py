from __future__ import annotations

import numpy as np
import pytest

from marketplace.protocol.payloads import LEAST_LOGPROB_MICRO
from worker.proofs.logprobs import logprobs


def test_chosen_token_comes_first_and_the_likeliest_in_order() -> None:
    row = np.log(np.array([0.5, 0.125, 0.25, 0.125], np.float32))
    assert logprobs(row, 1, 2) == [(1, -2_079_442), (0, -693_147), (2, -1_386_294)]


def test_equals_are_told_by_ascending_id() -> None:
    row = np.zeros(100, np.float32)
    assert [token for token, _ in logprobs(row, 99, 5)] == [99, 0, 1, 2, 3, 4]


def test_a_small_vocabulary_tells_all_it_has() -> None:
    assert len(logprobs(np.zeros(3, np.float32), 0, 20)) == 1 + 3


@pytest.mark.parametrize("shift", [-3e4, 0, 3e4])
def test_scores_may_be_large(shift: float) -> None:
    row = np.array([0, -1, -2], np.float32) + np.float32(shift)
    assert logprobs(row, 0, 0) == [(0, -407_606)]


def test_what_could_not_have_come_has_the_least_number() -> None:
    row = np.array([0, -np.inf], np.float32)
    assert logprobs(row, 1, 1) == [(1, LEAST_LOGPROB_MICRO), (0, 0)]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_network_without_numbers_is_told_so() -> None:
    row = np.full(4, np.nan, np.float32)
    assert logprobs(row, 2, 2)[0] == (2, LEAST_LOGPROB_MICRO)

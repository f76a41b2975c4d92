"""The follower's plan: whatever the chain does, following it ends with the chain's own blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketplace.chain.blocks import WINDOW, ReorgPlan, compare, plan
from marketplace.protocol.errors import ChainTrouble, ErrorCode

START = 5


def fork(name: str, number: int) -> bytes:
    return f"{name}{number}".encode().rjust(32, b"\0")


def blocks(name: str, first: int, last: int) -> list[tuple[int, bytes]]:
    return [(n, fork(name, n)) for n in range(first, last + 1)]


def plan_against(
    known: list[tuple[int, bytes]], now: list[tuple[int, bytes]], *, start: int = START
) -> ReorgPlan:
    chain = dict(now)
    head = max(chain)
    return plan(known, compare(known, head, chain.get), head, start=start)


def test_plan_of_nothing_known_fetches_from_the_deployment_on() -> None:
    assert plan_against([], blocks("a", 0, 9)) == ReorgPlan(rollback_to=None, fetch_from=5, fetch_to=9)


def test_plan_without_news_fetches_nothing() -> None:
    same = blocks("a", 5, 9)
    got = plan_against(same, same)
    assert got.rollback_to is None
    assert got.fetch_to < got.fetch_from


def test_plan_fetches_only_new_blocks() -> None:
    got = plan_against(blocks("a", 5, 9), blocks("a", 0, 12))
    assert got == ReorgPlan(rollback_to=None, fetch_from=10, fetch_to=12)


def test_plan_rolls_back_to_the_last_common_block() -> None:
    now = blocks("a", 0, 7) + blocks("b", 8, 11)
    assert plan_against(blocks("a", 5, 10), now) == ReorgPlan(rollback_to=7, fetch_from=8, fetch_to=11)


def test_plan_rolls_back_although_the_new_chain_is_shorter() -> None:
    now = blocks("a", 0, 7) + blocks("b", 8, 8)
    assert plan_against(blocks("a", 5, 10), now) == ReorgPlan(rollback_to=7, fetch_from=8, fetch_to=8)


def test_plan_waits_for_a_node_that_merely_lags() -> None:
    got = plan_against(blocks("a", 5, 10), blocks("a", 0, 7))
    assert got.rollback_to is None
    assert got.fetch_to < got.fetch_from


def test_plan_rolls_back_everything_when_all_history_is_stored() -> None:
    got = plan_against(blocks("a", 5, 10), blocks("b", 0, 11))
    assert got == ReorgPlan(rollback_to=4, fetch_from=5, fetch_to=11)


def test_plan_refuses_a_reorganisation_deeper_than_the_window() -> None:
    with pytest.raises(ChainTrouble) as caught:
        plan_against(blocks("a", 50, 50 + WINDOW - 1), blocks("b", 0, 400))
    assert caught.value.code is ErrorCode.WRONG_CHAIN


def test_compare_asks_for_one_block_when_nothing_changed() -> None:
    asked: list[int] = []
    known = blocks("a", 5, 200)

    def hash_of(number: int) -> bytes:
        asked.append(number)
        return fork("a", number)

    compare(known, 200, hash_of)
    assert asked == [200]


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 14), st.booleans()),
        min_size=1,
        max_size=12,
    ),
)
def test_following_any_history_ends_with_the_chains_own_blocks(
    moves: list[tuple[int, int, bool]],
) -> None:
    """Moves: how deep the chain forks, how many blocks come, whether the follower looks then."""
    now = blocks("0", 0, START)
    known: list[tuple[int, bytes]] = []
    for turn, (depth, fresh, looks) in enumerate(moves, start=1):
        keep = max(1, len(now) - depth)
        now = now[:keep] + blocks(str(turn), keep, keep + fresh)
        if looks or turn == len(moves):
            known = follow(known, now)
    known = follow(known, now)
    if now[-1][0] >= START:
        agreed = known[: len(now) - START]
        assert agreed == now[START:]


def follow(known: list[tuple[int, bytes]], now: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    todo = plan_against(known, now)
    if todo.rollback_to is not None:
        known = [(n, h) for n, h in known if n <= todo.rollback_to]
    chain = dict(now)
    return known + [(n, chain[n]) for n in range(todo.fetch_from, todo.fetch_to + 1)]

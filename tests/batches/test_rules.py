from __future__ import annotations

import pytest

from marketplace.batches import rules
from marketplace.batches.rules import Next, Share, share_out
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.phases import EndReason
from tests.funding.test_rules import DEADLINE_MS, price, purse
from tests.quoting.test_rules import NOW_MS, listing, need


def able(*listings, model="tiny", **changes):
    found = rules.able(model, listings, need(**changes), now_ms=NOW_MS, min_stake_atoms=1_000)
    return [quote.listing.node_id for quote in found]


def refusal(*listings, **changes):
    with pytest.raises(BadRequest) as refused:
        able(*listings, **changes)
    return refused.value.code


def test_nodes_that_are_away_count_only_where_none_is_there():
    away, drains = listing(2, connected=False), listing(3, draining=True)
    assert able(listing(1), away, drains) == [1]
    assert sorted(able(away, drains)) == [2, 3]
    assert able(listing(2, connected=False, price=11), drains, max_cost_atoms=10) == [3]


def test_line_that_no_node_will_ever_take_is_refused_with_the_reason():
    assert refusal(listing(1), model="other") is ErrorCode.UNKNOWN_MODEL
    assert refusal(listing(1, task="embed")) is ErrorCode.UNSUPPORTED
    assert refusal(listing(1), max_cost_atoms=9) is ErrorCode.PRICE_ABOVE_MAX
    assert refusal(listing(1), node_id=7) is ErrorCode.UNKNOWN_NODE


def test_lines_take_the_cheapest_node_until_its_sessions_are_empty():
    offered = [price(1, 10), price(2, 30)]
    purses = [purse(1, 25, name="one"), purse(2, 30, name="two")]
    shares = share_out(dict.fromkeys(range(3), offered), purses, {}, DEADLINE_MS)
    assert [shares[i] for i in range(3)] == [
        Share(session_id="one", ceiling_atoms=10),
        Share(session_id="one", ceiling_atoms=10),
        Share(session_id="two", ceiling_atoms=30),
    ]
    assert rules.total(shares) == 50


def test_lines_that_fit_alone_and_not_together_are_refused_with_both_sums():
    wanted = {number: [price(1, 10)] for number in range(4)}
    said = "all lines together may cost 40 atoms or more; .* can set 20 aside for 2 of 4 lines"
    with pytest.raises(BadRequest, match=said) as refused:
        share_out(wanted, [purse(1, 29)], {}, DEADLINE_MS)
    assert refused.value.code is ErrorCode.SESSION_UNDERFUNDED


def test_line_that_does_not_even_fit_alone_is_named():
    wanted = {3: [price(1, 10)], 7: [price(1, 30)]}
    with pytest.raises(BadRequest, match="line 7: 29 atoms are left") as refused:
        share_out(wanted, [purse(1, 29)], {}, DEADLINE_MS)
    assert refused.value.code is ErrorCode.SESSION_UNDERFUNDED
    with pytest.raises(BadRequest, match="line 3: ") as refused:
        share_out(wanted, [], {}, DEADLINE_MS)
    assert refused.value.code is ErrorCode.NO_SESSION


def test_what_other_batches_were_promised_is_not_promised_again():
    wanted, purses = {1: [price(1, 10)]}, [purse(1, 15, name="s")]
    share_out(wanted, purses, {"s": 5, "other": 99}, DEADLINE_MS)
    with pytest.raises(BadRequest):
        share_out(wanted, purses, {"s": 6}, DEADLINE_MS)


def test_limit_counts_all_lines_together():
    rules.check_limit(10, None)
    rules.check_limit(10, 10)
    with pytest.raises(
        BadRequest, match="all lines together may cost 11 atoms, max_cost allows 10"
    ) as refused:
        rules.check_limit(11, 10)
    assert refused.value.code is ErrorCode.PRICE_ABOVE_MAX


@pytest.mark.parametrize(
    ("reason", "tries", "was_taken", "expected"),
    [
        (EndReason.NO_NODE_LEFT, 3, False, Next.PAUSE),
        (EndReason.REFUSED, 9, False, Next.PAUSE),
        (EndReason.NO_NODE_LEFT, 2, True, Next.RETRY),
        (EndReason.NO_NODE_LEFT, 3, True, Next.FAIL),
        (EndReason.NODE_FAILED, 1, True, Next.RETRY),
        (EndReason.NODE_FAILED, 3, True, Next.FAIL),
        (EndReason.DEADLINE_PASSED, 2, True, Next.RETRY),
        (EndReason.BAD_INPUT, 1, False, Next.FAIL),
        (EndReason.CANCELLED, 1, True, Next.FAIL),
    ],
)
def test_line_is_tried_again_while_another_node_or_time_may_help(reason, tries, was_taken, expected):
    assert rules.after(reason, tries, was_taken=was_taken) is expected


def test_pauses_double_up_to_a_minute():
    assert [rules.pause_ms(times) for times in (0, 1, 5, 6, 99)] == [1_000, 2_000, 32_000, 60_000, 60_000]


def test_only_what_a_line_says_itself_fails_it_at_placing():
    assert rules.is_lines_fault(ErrorCode.UNSUPPORTED)
    assert rules.is_lines_fault(ErrorCode.KEY_REVOKED)
    for code in (ErrorCode.NO_NODE, ErrorCode.SESSION_UNDERFUNDED, ErrorCode.PRICE_ABOVE_MAX):
        assert not rules.is_lines_fault(code)


def test_names_of_lines_are_told_apart():
    names = {rules.line_name(batch, number) for batch in ("batch_a", "batch_a1") for number in (1, 11)}
    assert len(names) == 4
    assert rules.line_id("batch_a", 1) == rules.line_id("batch_a", 1)

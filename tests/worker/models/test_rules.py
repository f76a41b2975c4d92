from __future__ import annotations

import pytest

from marketplace.protocol.errors import BadRequest
from worker.models import rules
from worker.models.rules import Serving, servings

OLD = Serving(source="tiny", price="tiny", current="tiny")
TRIED = rules.roll_out(OLD, "tiny-2", 500)


def refused(call, *arguments) -> str:
    with pytest.raises(BadRequest) as caught:
        call(*arguments)
    assert caught.value.values["hint"]
    return caught.value.detail


def test_trial_leaves_the_current_version_where_it_is_and_both_are_wanted() -> None:
    assert (TRIED.current, TRIED.canary, TRIED.canary_bps) == ("tiny", "tiny-2", 500)
    assert TRIED.wanted == ("tiny", "tiny-2")


def test_promoted_version_serves_and_the_way_back_is_the_one_before() -> None:
    made = rules.promote(TRIED)
    assert (made.wanted, made.previous, made.canary_bps) == (("tiny-2",), "tiny", 0)
    back = rules.roll_back(made)
    assert (back.wanted, back.previous) == (("tiny",), None)


def test_rolling_a_trial_back_ends_it_and_nothing_else() -> None:
    promoted = rules.promote(TRIED)
    assert rules.roll_back(rules.roll_out(promoted, "tiny-3", 100)) == promoted


def test_share_of_a_trial_can_be_changed() -> None:
    assert rules.roll_out(TRIED, "tiny-2", 2_500).canary_bps == 2_500


def test_second_trial_beside_the_first_is_refused() -> None:
    assert "on trial" in refused(rules.roll_out, TRIED, "tiny-3", 500)


def test_version_that_serves_is_no_trial() -> None:
    assert "already" in refused(rules.roll_out, OLD, "tiny", 500)


def test_nothing_to_promote_or_to_go_back_to_is_said() -> None:
    assert "on trial" in refused(rules.promote, OLD)
    assert "go back" in refused(rules.roll_back, OLD)


def test_settings_say_what_is_served_and_the_ledger_at_which_version() -> None:
    beside = Serving(source="more", price="tiny", current="more")
    stored = rules.plain([TRIED, beside, Serving(source="gone", price="gone", current="gone")])
    assert servings(["tiny", "mini"], stored) == (
        TRIED,
        Serving(source="mini", price="mini", current="mini"),
        beside,
    )


def test_only_served_model_need_not_be_named_and_several_must() -> None:
    mini = Serving(source="mini", price="mini", current="mini")
    assert rules.choose([OLD], None) == OLD
    assert rules.choose([TRIED, mini], "tiny-2") == TRIED
    assert "several" in refused(rules.choose, [OLD, mini], None)
    assert "not served" in refused(rules.choose, [OLD, mini], "other")
    assert "not served" in refused(rules.choose, [], None)


def test_versions_in_use_are_those_that_serve_or_can_be_gone_back_to() -> None:
    made = rules.roll_out(rules.promote(TRIED), "tiny-3", 1)
    assert [rules.users_of([made], name) for name in ("tiny", "tiny-2", "tiny-3")] == [["tiny"]] * 3
    assert rules.users_of([made], "tiny-4") == []


@pytest.mark.parametrize(
    ("text", "bps"), [("5%", 500), ("0.5%", 50), ("12.34 %", 1_234), ("100%", 10_000), ("0.01%", 1)]
)
def test_share_is_read_to_the_hundredth_of_a_percent(text: str, bps: int) -> None:
    assert rules.share_bps(text) == bps


@pytest.mark.parametrize("text", ["0%", "0.00%", "100.01%", "5", "-5%", "a%", "", "0.005%", "5 percent"])
def test_what_is_no_share_is_refused(text: str) -> None:
    assert "share" in refused(rules.share_bps, text)

"""The contracts do what a model written from the protocol page says, and the check would notice otherwise."""

from __future__ import annotations

import dataclasses

import pytest

from tests.model.bench import Tally
from tests.model.campaign import VERBS_OF_OTHERS, checked, found_after, unseen_errors
from tests.model.planted import CONTRACT_BUGS, MODEL_BUGS, BadBug, Bug, planted_model
from tests.model.records import Rules
from tests.model.settlement import Status

pytestmark = pytest.mark.chain

CALLS = 3_000
ENOUGH = 20_000


@pytest.fixture(scope="module")
def tally() -> Tally:
    """Of a run that found no difference, or it would have raised."""
    return checked(CALLS)


def test_model_and_contracts_agree_about_every_call(tally: Tally) -> None:
    assert tally.calls >= CALLS
    assert tally.views > 10 * tally.calls


def test_run_reaches_successes_and_refusals_of_every_verb(tally: Tally) -> None:
    assert set(tally.refused) - set(tally.done) <= VERBS_OF_OTHERS | {"registry.withdrawStake"}
    assert set(tally.refused) >= VERBS_OF_OTHERS
    assert set(tally.statuses) == {status.name for status in Status}
    assert len(unseen_errors(tally)) <= 10


@pytest.mark.parametrize("bug", MODEL_BUGS, ids=lambda bug: bug.name)
def test_planted_bug_is_found(bug: Bug) -> None:
    assert found_after(ENOUGH, maker=planted_model(bug)) is not None


@pytest.mark.parametrize(
    "limit",
    ["grace_seconds", "challenge_seconds", "max_session_seconds", "min_stake", "unstake_delay_seconds"],
)
def test_contracts_with_one_second_or_atom_less_are_found(limit: str) -> None:
    rules = Rules()
    other = dataclasses.replace(rules, **{limit: getattr(rules, limit) - 1})
    assert found_after(ENOUGH, evm_rules=other) is not None


@pytest.mark.parametrize("bug", CONTRACT_BUGS, ids=lambda bug: bug.name)
def test_contract_bug_has_its_place(bug: Bug) -> None:
    """What the long run compiles; a contract that moved on takes its bug along."""
    assert bug.source() != bug.apply(bug.source())


def test_bug_without_its_place_is_refused() -> None:
    with pytest.raises(BadBug, match="0 places"):
        Bug("nowhere", "settlement", "not a line of it", "").apply("another line")

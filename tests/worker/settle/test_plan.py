"""When vouchers are worth a transaction."""

from typing import Any

import pytest

from marketplace.protocol.due import SettlePolicy
from worker.settle.rules import Candidate, plan

NOW_MS = 1_000_000_000
POLICY = SettlePolicy(min_total_atoms=100, max_age_ms=60_000, expiry_margin_seconds=600, max_items=2)


def candidate(name: bytes, **changes: Any) -> Candidate:
    values: dict[str, Any] = {
        "session_id": name * 32,
        "amount_atoms": 60,
        "paid_atoms": 20,
        "held_since_ms": NOW_MS,
        "retry_at_ms": 0,
        "expires_at": NOW_MS // 1000 + 3_600,
        "closed": False,
    }
    return Candidate(**values | changes)


def planned(*candidates: Candidate, now_ms: int = NOW_MS, everything: bool = False) -> list[bytes]:
    found = plan(candidates, POLICY, grace_seconds=900, now_ms=now_ms, everything=everything)
    return [session_id[:1] for session_id in found]


def test_nothing_is_settled_one_atom_below_the_bar() -> None:
    assert planned(candidate(b"a"), candidate(b"b", amount_atoms=79)) == []


def test_all_are_settled_once_they_reach_the_bar_together() -> None:
    assert planned(candidate(b"a"), candidate(b"b", amount_atoms=80)) == [b"a", b"b"]


def test_all_are_settled_once_the_oldest_is_old_enough() -> None:
    old = candidate(b"a", held_since_ms=NOW_MS - 60_000)
    assert planned(old, candidate(b"b")) == [b"a", b"b"]


def test_soonest_to_expire_goes_first_and_a_transaction_has_a_limit() -> None:
    soon = candidate(b"c", expires_at=NOW_MS // 1000 + 600)
    assert planned(candidate(b"a"), candidate(b"b"), soon) == [b"c", b"a"]


def test_force_settles_everything_that_pays_anything() -> None:
    paid = candidate(b"b", paid_atoms=60)
    assert planned(candidate(b"a", amount_atoms=21), paid, everything=True) == [b"a"]


@pytest.mark.parametrize(
    "changes",
    [{"closed": True}, {"expires_at": NOW_MS // 1000 - 900}, {"retry_at_ms": NOW_MS + 1}],
    ids=["closed", "grace is over", "rests after a skip"],
)
def test_voucher_the_escrow_would_not_take_is_left_out(changes: dict[str, Any]) -> None:
    assert planned(candidate(b"a", **changes), everything=True) == []


def test_last_second_of_grace_still_settles() -> None:
    assert planned(candidate(b"a", expires_at=NOW_MS // 1000 - 899), everything=True) == [b"a"]

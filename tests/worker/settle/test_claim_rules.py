"""When receipts without a voucher are worth a claim, and when a claim is over."""

from typing import Any

import pytest

from worker.settle.rules import ClaimNow, Unpaid, claimable, has_ended, look_due, most_valuable

NOW = 1_000_000
GRACE, MARGIN, PATIENCE = 900, 30, 300


def unpaid(name: bytes = b"a", **changes: Any) -> Unpaid:
    values: dict[str, Any] = {
        "session_id": name * 32,
        "expires_at": NOW - 1,
        "closed": False,
        "owed_atoms": 100,
        "unfinished": 0,
        "unconfirmed": 0,
        "voucher_waits": False,
        "claim_waits": False,
    }
    return Unpaid(**values | changes)


def claimed(*items: Unpaid, min_atoms: int = 100, now_ms: int = NOW * 1000) -> list[bytes]:
    found = claimable(
        items,
        min_atoms=min_atoms,
        grace_seconds=GRACE,
        margin_seconds=MARGIN,
        unconfirmed_seconds=PATIENCE,
        now_ms=now_ms,
    )
    return [session_id[:1] for session_id in found]


@pytest.mark.parametrize(
    ("expires_at", "expected"),
    [
        (NOW + 1, []),
        (NOW, [b"a"]),
        (NOW - GRACE + MARGIN + 1, [b"a"]),
        (NOW - GRACE + MARGIN, []),
    ],
    ids=["not expired", "expires now", "last second", "too close to the end of its grace"],
)
def test_claim_is_made_from_expiry_until_the_margin_before_grace_ends(
    expires_at: int, expected: list[bytes]
) -> None:
    assert claimed(unpaid(expires_at=expires_at)) == expected


def test_sum_one_atom_below_what_is_worth_it_is_not_claimed() -> None:
    assert claimed(unpaid(owed_atoms=99), unpaid(b"b")) == [b"b"]


@pytest.mark.parametrize(
    "changes", [{"closed": True}, {"unfinished": 1}, {"voucher_waits": True}, {"claim_waits": True}]
)
def test_session_that_is_not_ready_waits(changes: dict[str, Any]) -> None:
    assert claimed(unpaid(**changes)) == []


@pytest.mark.parametrize(("ago", "expected"), [(569, []), (570, [b"a"]), (869, [b"a"]), (870, [])])
def test_receipt_that_may_be_superseded_waits_until_it_is_nearly_too_late(
    ago: int, expected: list[bytes]
) -> None:
    assert claimed(unpaid(expires_at=NOW - ago, unconfirmed=1)) == expected


def test_session_that_is_over_soonest_goes_first() -> None:
    assert claimed(unpaid(b"a"), unpaid(b"b", expires_at=NOW - 2), unpaid(b"c")) == [b"b", b"a", b"c"]


OWED = [(1, 5), (2, 7), (4, 80), (5, 7), (9, 1)]


@pytest.mark.parametrize(
    ("most", "expected"),
    [(0, []), (1, [4]), (2, [2, 4]), (3, [2, 4, 5]), (4, [1, 2, 4, 5]), (9, [1, 2, 4, 5, 9])],
)
def test_claim_holds_the_dearest_receipts_by_seq(most: int, expected: list[int]) -> None:
    assert most_valuable(OWED, most=most, limit_atoms=1 << 70) == expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0, []), (1, [9]), (15, [2, 5, 9]), (79, [1, 2, 5, 9]), (80, [4]), (99, [1, 2, 4, 5])],
)
def test_receipt_too_dear_for_what_is_left_makes_room_for_cheaper_ones(
    limit: int, expected: list[int]
) -> None:
    assert most_valuable(OWED, most=9, limit_atoms=limit) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"final_at": 0, "pending_atoms": 0}, True),
        ({"final_at": NOW}, True),
        ({"final_at": NOW, "pending_atoms": 0}, False),
        ({"is_settled": True}, True),
        ({"is_settled": True, "pending_atoms": 0}, False),
        ({"read_at_ms": NOW * 1000 - 60_000}, True),
    ],
    ids=["fresh", "unseen", "final", "held", "replaced", "held and settled", "read long ago"],
)
def test_claim_is_read_when_something_may_have_moved(changes: dict[str, Any], expected: bool) -> None:
    values: dict[str, Any] = {
        "pending_atoms": 9,
        "final_at": NOW + 1,
        "is_settled": False,
        "read_at_ms": NOW * 1000 - 59_999,
    }
    assert look_due(**values | changes, every_ms=60_000, now_ms=NOW * 1000) is expected


@pytest.mark.parametrize(
    ("changes", "was_seen", "expected"),
    [
        ({"settled_seq": 5}, True, True),
        ({"settled_seq": 4}, True, False),
        ({"settled_seq": 4}, False, True),
        ({"settled_seq": 4, "expires_at": NOW - GRACE - 599}, False, False),
        ({"settled_seq": 4, "pending_atoms": 1}, True, False),
        ({"settled_seq": 5, "held_atoms": 1}, True, False),
    ],
    ids=["decided", "vanished", "never came", "may still come", "pending", "held"],
)
def test_claim_ends_when_nothing_more_can_come_of_it(
    changes: dict[str, Any], was_seen: bool, expected: bool
) -> None:
    values: dict[str, Any] = {
        "pending_atoms": 0,
        "held_atoms": 0,
        "final_at": 0,
        "settled_seq": 0,
        "expires_at": NOW - GRACE - 600,
    }
    now = ClaimNow(**values | changes)
    ended = has_ended(now, through_seq=5, was_seen=was_seen, grace_seconds=GRACE, now_ms=NOW * 1000)
    assert ended is expected

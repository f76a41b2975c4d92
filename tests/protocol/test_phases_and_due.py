"""State tables are total; settlement falls due by amount, age or expiry."""

from __future__ import annotations

import pytest

from marketplace.protocol.due import SettlePolicy, Unsettled, due
from marketplace.protocol.errors import SPECS, BadRequest, ErrorCode, WattError
from marketplace.protocol.phases import (
    ENDED,
    ENDINGS,
    HAS_RESULT,
    OPEN,
    TRANSITIONS,
    EndReason,
    JobPhase,
    SessionStatus,
    may_move,
    session_status,
)

POLICY = SettlePolicy(min_total_atoms=100, max_age_ms=60_000, expiry_margin_seconds=600, max_items=3)
NOW_MS = 1_000_000_000


def item(n: int, unpaid: int, age_ms: int = 0, expires_in: int = 10_000) -> Unsettled:
    return Unsettled(
        session_id=bytes([n]) * 32,
        unpaid_atoms=unpaid,
        held_since_ms=NOW_MS - age_ms,
        expires_at=NOW_MS // 1000 + expires_in,
    )


def test_tables_are_total() -> None:
    assert set(TRANSITIONS) == set(JobPhase) == OPEN | HAS_RESULT | ENDED
    assert set(ENDINGS) == set(EndReason)
    assert set(SPECS) == set(ErrorCode)


def test_ended_jobs_never_move_and_results_never_fall_back_to_work() -> None:
    assert all(not TRANSITIONS[phase] for phase in ENDED)
    assert all(not TRANSITIONS[phase] & OPEN for phase in HAS_RESULT)
    assert not may_move(JobPhase.DELIVERED, JobPhase.SETTLED)


def test_every_phase_can_be_reached() -> None:
    reached, edge = {JobPhase.ORDERED}, [JobPhase.ORDERED]
    while edge:
        new = TRANSITIONS[edge.pop()] - reached
        reached |= new
        edge += new
    assert reached == set(JobPhase)


def test_charged_endings_have_no_problem() -> None:
    assert all((ending.problem is None) == ending.charged for ending in ENDINGS.values())


def test_every_error_code_has_a_remedy() -> None:
    for spec in SPECS.values():
        assert 400 <= spec.status < 600
        assert spec.title
        assert spec.hint.endswith((".", "…")) or "POST" in spec.hint or "GET" in spec.hint


def test_errors_carry_code_and_values() -> None:
    error = BadRequest(ErrorCode.PRICE_ABOVE_MAX, "too dear", asked_atoms=5, limit_atoms=4)
    assert isinstance(error, WattError)
    assert error.values == {"asked_atoms": 5, "limit_atoms": 4}
    assert error.spec.status == 402


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        ([item(1, 99)], []),
        ([item(1, 100)], [1]),
        ([item(1, 60), item(2, 40)], [1, 2]),
        ([item(1, 1, age_ms=60_000)], [1]),
        ([item(1, 1, age_ms=59_999)], []),
        ([item(1, 1, expires_in=600)], [1]),
        ([item(1, 1, expires_in=601)], []),
        ([item(1, 0, age_ms=10**9, expires_in=-5)], []),
        ([item(1, 0, age_ms=10**9), item(2, 5)], []),
        ([item(3, 50, expires_in=900), item(1, 50, expires_in=800)], [1, 3]),
        ([item(n, 100, expires_in=1000 + n) for n in (4, 3, 2, 1)], [1, 2, 3]),
    ],
)
def test_vouchers_fall_due_by_amount_age_or_expiry(items: list[Unsettled], expected: list[int]) -> None:
    assert [i.session_id[0] for i in due(items, POLICY, NOW_MS)] == expected


def test_session_status_is_derived() -> None:
    assert session_status(closed=False, expires_at=10, now=9) is SessionStatus.OPEN
    assert session_status(closed=False, expires_at=10, now=10) is SessionStatus.EXPIRING
    assert session_status(closed=True, expires_at=10, now=0) is SessionStatus.CLOSED

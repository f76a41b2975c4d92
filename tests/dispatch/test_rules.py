from __future__ import annotations

import pytest

from marketplace.dispatch import rules
from marketplace.dispatch.rules import Failure, Late, Next
from marketplace.protocol.phases import EndReason


def failure(**changes):
    values = {"held": True, "attempts": 1, "deadline_ms": 100, "cause": "node_busy", "refused": False}
    return Failure(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "now_ms", "move", "reason"),
    [
        ({}, 50, Next.REISSUE, None),
        ({"attempts": 2}, 50, Next.REISSUE, None),
        ({"attempts": 3}, 50, Next.FAIL, EndReason.NODE_FAILED),
        ({"held": False}, 50, Next.FAIL, EndReason.NODE_FAILED),
        ({"held": False, "refused": True}, 50, Next.FAIL, EndReason.REFUSED),
        ({}, 100, Next.FAIL, EndReason.DEADLINE_PASSED),
        ({"cause": "input_too_long"}, 50, Next.FAIL, EndReason.BAD_INPUT),
        ({"cause": "unsupported"}, 50, Next.FAIL, EndReason.BAD_INPUT),
    ],
)
def test_failed_order_goes_elsewhere_while_that_can_help(changes, now_ms, move, reason):
    found = rules.after_failure(failure(**changes), now_ms)
    assert found.move is move
    assert reason is None or found.reason is reason


GOOD = {
    "finished_at_ms": 9,
    "lease_until_ms": 10,
    "job_waits": True,
    "covered": False,
    "affordable": True,
}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Late.ACCEPT),
        ({"finished_at_ms": 10}, Late.ACCEPT),
        ({"finished_at_ms": 11}, Late.SUPERSEDE),
        ({"job_waits": False}, Late.SUPERSEDE),
        ({"covered": True}, Late.SUPERSEDE),
        ({"affordable": False}, Late.SUPERSEDE),
    ],
)
def test_late_receipt_counts_only_where_nothing_has_moved_on(changes, verdict):
    assert rules.late(**(GOOD | changes)) is verdict

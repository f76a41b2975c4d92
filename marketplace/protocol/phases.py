"""Where a job and a session can stand, and every move between (PROTOCOL §8)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from marketplace.protocol.errors import ErrorCode


class JobPhase(StrEnum):
    """Progress of one job's work."""

    ORDERED = "ordered"
    LEASED = "leased"
    RUNNING = "running"
    DELIVERED = "delivered"
    ACKNOWLEDGED = "acknowledged"
    SETTLED = "settled"
    FAILED = "failed"
    EXPIRED = "expired"
    REFUNDED = "refunded"


_P = JobPhase
TRANSITIONS: Final[dict[JobPhase, frozenset[JobPhase]]] = {
    # A lost lease or a failed node puts the job back: ordered again, towards another node.
    _P.ORDERED: frozenset({_P.LEASED, _P.FAILED, _P.EXPIRED}),
    _P.LEASED: frozenset({_P.RUNNING, _P.DELIVERED, _P.ORDERED, _P.FAILED, _P.EXPIRED}),
    _P.RUNNING: frozenset({_P.DELIVERED, _P.ORDERED, _P.FAILED, _P.EXPIRED}),
    _P.DELIVERED: frozenset({_P.ACKNOWLEDGED, _P.REFUNDED}),
    _P.ACKNOWLEDGED: frozenset({_P.SETTLED, _P.REFUNDED}),
    # What the chain decided, a reorganisation can take back until it is mined again.
    _P.SETTLED: frozenset({_P.ACKNOWLEDGED}),
    _P.REFUNDED: frozenset({_P.ACKNOWLEDGED}),
    _P.FAILED: frozenset(),
    _P.EXPIRED: frozenset(),
}
ENDED: Final = frozenset({_P.FAILED, _P.EXPIRED})
HAS_RESULT: Final = frozenset({_P.DELIVERED, _P.ACKNOWLEDGED, _P.SETTLED, _P.REFUNDED})
OPEN: Final = frozenset({_P.ORDERED, _P.LEASED, _P.RUNNING})


def may_move(before: JobPhase, after: JobPhase) -> bool:
    """Whether the table allows this move."""
    return after in TRANSITIONS[before]


class EndReason(StrEnum):
    """Why a job ended, apart from where it stands."""

    DONE = "done"
    CUT_SHORT = "cut_short"
    NODE_FAILED = "node_failed"
    NO_NODE_LEFT = "no_node_left"
    REFUSED = "refused"
    BAD_INPUT = "bad_input"
    DEADLINE_PASSED = "deadline_passed"
    SESSION_EXPIRED = "session_expired"
    CANCELLED = "cancelled"
    UNCLAIMED = "unclaimed"
    COURT_REFUNDED = "court_refunded"


@dataclass(frozen=True, slots=True)
class Ending:
    """What an end reason means to a caller: problem (none for success), charge, one sentence."""

    problem: ErrorCode | None
    charged: bool
    sentence: str


_R = EndReason
ENDINGS: Final[dict[EndReason, Ending]] = {
    _R.DONE: Ending(None, True, "The node answered and was paid what its receipt says."),
    _R.CUT_SHORT: Ending(None, True, "The answer was cut short; only the delivered part is paid."),
    _R.NODE_FAILED: Ending(ErrorCode.NODE_FAILED, False, "The node failed; nothing was charged."),
    _R.NO_NODE_LEFT: Ending(ErrorCode.NO_NODE, False, "No node could take the job; nothing was charged."),
    _R.REFUSED: Ending(ErrorCode.NO_NODE, False, "The node refused the order; nothing was charged."),
    _R.BAD_INPUT: Ending(ErrorCode.INVALID_REQUEST, False, "The input cannot be run; nothing was charged."),
    _R.DEADLINE_PASSED: Ending(ErrorCode.DEADLINE_PASSED, False, "Time ran out; nothing was charged."),
    _R.SESSION_EXPIRED: Ending(ErrorCode.SESSION_EXPIRED, False, "The session ended; nothing was charged."),
    _R.CANCELLED: Ending(
        ErrorCode.CANCELLED, False, "It was cancelled before anything was delivered; nothing was charged."
    ),
    _R.UNCLAIMED: Ending(
        ErrorCode.SESSION_EXPIRED,
        False,
        "The node claimed others and left this out; nothing was charged.",
    ),
    _R.COURT_REFUNDED: Ending(ErrorCode.NODE_FAILED, False, "The court gave the money back."),
}


# Finish reasons and refusals that any other node would repeat: the input itself cannot be run.
CALLERS_FAULT: Final = frozenset({ErrorCode.INPUT_TOO_LONG, ErrorCode.INVALID_REQUEST, ErrorCode.UNSUPPORTED})


class SessionStatus(StrEnum):
    """Where a session's money stands; derived from chain facts, never stored."""

    OPEN = "open"
    EXPIRING = "expiring"
    CLOSED = "closed"


def session_status(*, closed: bool, expires_at: int, now: int) -> SessionStatus:
    """Status at `now` (Unix seconds); between expiry and its return a session is expiring."""
    if closed:
        return SessionStatus.CLOSED
    return SessionStatus.OPEN if now < expires_at else SessionStatus.EXPIRING

"""Exit codes: 0 ok · 1 failed · 2 usage · 3 not found · 4 money · 5 network or chain · 130 interrupted."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from marketplace.protocol.errors import ErrorCode, WattError


class Exit(IntEnum):
    """What a finished command tells its shell."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    MONEY = 4
    NETWORK = 5
    INTERRUPTED = 130


_C: Final = ErrorCode
_BY_CODE: Final = {
    **dict.fromkeys(
        (
            _C.NOT_FOUND,
            _C.UNKNOWN_MODEL,
            _C.UNKNOWN_NODE,
            _C.UNKNOWN_JOB,
            _C.UNKNOWN_RECEIPT,
            _C.UNKNOWN_SESSION,
            _C.UNKNOWN_WEBHOOK,
            _C.CONTENT_DELETED,
        ),
        Exit.NOT_FOUND,
    ),
    **dict.fromkeys(
        (
            _C.NO_SESSION,
            _C.SESSION_UNDERFUNDED,
            _C.SESSION_EXPIRED,
            _C.PRICE_ABOVE_MAX,
            _C.EXPOSURE_EXCEEDED,
            _C.BUDGET_EXCEEDED,
        ),
        Exit.MONEY,
    ),
    **dict.fromkeys(
        (_C.CHAIN_UNAVAILABLE, _C.WRONG_CHAIN, _C.NOT_READY, _C.TRANSACTION_REVERTED), Exit.NETWORK
    ),
}


def exit_of(error: WattError) -> Exit:
    """Exit code of an error."""
    return _BY_CODE.get(error.code, Exit.FAILED)

"""Names of what the settler sends; the same name finds the same signed bytes again."""

from __future__ import annotations

from typing import Final

from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.protocol.transactions import TxJournal, TxState

SETTLE_INTENT: Final = "settle:"
COLLECT_INTENT: Final = "collect:"
CLAIM_INTENT: Final = "claim:"
FINALISE_INTENT: Final = "finalise:"
_TRIES: Final = 100
_OVER: Final = (TxState.CONFIRMED, TxState.REVERTED)


def fresh_intent(journal: TxJournal, base: str) -> str:
    """The intent under which `base` is sent now.

    The same as before, unless that transaction is over and its work is still to do.

    Raises:
        Broken: it was over too often.
    """
    for attempt in range(1, _TRIES):
        intent = base if attempt == 1 else f"{base}:{attempt}"
        record = journal.find(intent)
        if record is None or record.state not in _OVER:
            return intent
    raise Broken(ErrorCode.INTERNAL, f"{base} was sent {_TRIES - 1} times and changed nothing")

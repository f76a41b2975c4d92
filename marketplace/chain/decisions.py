"""Which receipt the court decided about, which the escrow's own event does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from marketplace.chain.client import ChainClient
from marketplace.chain.codec import ChainEvent, decode_log, event_topic
from marketplace.protocol.errors import ChainTrouble, ErrorCode

_UPHELD: Final = "CaseUpheld"
_OTHER_ENDS: Final = ("CaseDismissed", "CaseVoid")
_OF_ONE_RECEIPT: Final = frozenset({"ClaimHeld", "ClaimResolved", _UPHELD, *_OTHER_ENDS})


def with_receipts(chain: ChainClient, events: list[ChainEvent]) -> list[ChainEvent]:
    """The same events; each `ClaimResolved` also has the `receiptHash` it is about.

    Asks the chain only when there is one, because the court is busy with much that moves no money.

    Raises:
        ChainTrouble: the court's own events are not there; the RPC lags, or the chain moved.
    """
    blocks = [event.block_number for event in events if event.name == "ClaimResolved"]
    if not blocks:
        return events
    court = chain.deployment.court
    topics = [[event_topic("Court", name) for name in (_UPHELD, *_OTHER_ENDS)]]
    found = chain.logs([court], min(blocks), max(blocks), topics)
    ends = [event for log in found if (event := decode_log(log, {court.lower(): "Court"}))]
    return joined(events, ends)


def joined(events: Sequence[ChainEvent], ends: Sequence[ChainEvent]) -> list[ChainEvent]:
    """As `with_receipts`, with the events by which the court ended cases in the same blocks."""
    told = [event for event in (*events, *ends) if event.name in _OF_ONE_RECEIPT]
    told.sort(key=_place)
    receipts = {
        _place(event): _receipt_of(event, told[max(0, at - 1) : at], told[at + 1 : at + 2])
        for at, event in enumerate(told)
        if event.name == "ClaimResolved"
    }
    return [
        replace(event, args=event.args | {"receiptHash": receipts[_place(event)]})
        if event.name == "ClaimResolved"
        else event
        for event in events
    ]


def _receipt_of(resolved: ChainEvent, before: Sequence[ChainEvent], after: Sequence[ChainEvent]) -> str:
    """A case that is upheld says so right after its money moved, any other right before.

    A proof holds the receipt and resolves it at once, without a case's end.
    """
    for event in after:
        # With nothing refunded no money moved for that case, so the one at hand is another's.
        if event.name == _UPHELD and event.args["refunded"] and _same_transaction(event, resolved):
            return str(event.args["caseId"])
    for event in before:
        if event.name in _OTHER_ENDS and _same_transaction(event, resolved):
            return str(event.args["caseId"])
        if event.name == "ClaimHeld" and _same_transaction(event, resolved):
            return str(event.args["receiptHash"])
    detail = f"the court's decision in block {resolved.block_number} is not among its events yet"
    raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, detail, block=resolved.block_number)


def _place(event: ChainEvent) -> tuple[int, int]:
    return event.block_number, event.log_index


def _same_transaction(one: ChainEvent, other: ChainEvent) -> bool:
    return (one.block_hash, one.tx_hash) == (other.block_hash, other.tx_hash)

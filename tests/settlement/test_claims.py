"""What a session's events decide about each of its orders."""

from __future__ import annotations

from typing import Any

import pytest

from marketplace.protocol.phases import EndReason
from marketplace.settlement.claims import Bill, Verdict, verdicts
from tests.registry.histories import event

A, B, C, D = "0xaa", "0xbb", "0xcc", "0xdd"
# Orders 1, 2, 4 and 5; 3 brought no receipt.
BILLS = [Bill(seq=seq, digest=digest) for seq, digest in ((1, A), (2, B), (4, C), (5, D))]
OPEN, WAITING = Verdict(), Verdict(is_waiting=True)
FREE = Verdict(refund=EndReason.UNCLAIMED)
COURT = Verdict(refund=EndReason.COURT_REFUNDED)


def paid(tx: int) -> Verdict:
    return Verdict(tx_hash=f"0x{tx:064x}")


def told(name: str, tx: int = 1, **args: Any) -> Any:
    return event(name, tx=tx, sessionId="0x5e", **args)


def voucher(seq: int, tx: int) -> Any:
    return told("VoucherSettled", tx, throughSeq=seq, paid=9)


def claimed(*receipts: str, seq: int = 5) -> Any:
    return told("Claimed", throughSeq=seq, receiptHashes=[*receipts])


def final(tx: int, seq: int = 5) -> Any:
    return told("ClaimFinalised", tx, throughSeq=seq, amount=1, paid=9)


def hold(receipt: str) -> Any:
    return told("ClaimHeld", receiptHash=receipt, amount=1)


def resolved(receipt: str, tx: int, *, is_paid: bool) -> Any:
    return told("ClaimResolved", tx, receiptHash=receipt, amount=1, isPaid=is_paid)


REPLACED = told("ClaimReplaced", amount=1)
CASES = {
    "nothing yet": ([], [OPEN] * 4),
    "vouchers pay up to their seq, each what no other did": (
        [voucher(1, 7), voucher(4, 8), voucher(4, 9)],
        [paid(7), paid(8), paid(8), OPEN],
    ),
    "a claim waits": ([voucher(1, 7), claimed(B, C, seq=4)], [paid(7), WAITING, WAITING, WAITING]),
    "a claim pays what it lists, the rest below its last is free": (
        [claimed(A, C, seq=4), final(7, seq=4)],
        [paid(7), FREE, paid(7), OPEN],
    ),
    "what a voucher paid before stays paid": (
        [voucher(2, 7), claimed(D), final(8)],
        [paid(7), paid(7), FREE, paid(8)],
    ),
    "what is held waits on": ([claimed(A, B, D), hold(B), final(7)], [paid(7), WAITING, FREE, paid(7)]),
    "the court lets the node have it": (
        [claimed(A, B, D), hold(B), final(7), resolved(B, 8, is_paid=True)],
        [paid(7), paid(8), FREE, paid(7)],
    ),
    "the court gives it back": (
        [claimed(A, B, D), hold(B), final(7), resolved(B, 8, is_paid=False)],
        [paid(7), COURT, FREE, paid(7)],
    ),
    "decided before the rest is final": (
        [
            claimed(A, B, D),
            hold(A),
            hold(B),
            resolved(A, 6, is_paid=True),
            resolved(B, 7, is_paid=False),
            final(8),
        ],
        [paid(6), COURT, FREE, paid(8)],
    ),
    "with nothing left to wait for, a struck claim ends at once": (
        [claimed(A, seq=1), hold(A), final(7, seq=1), resolved(A, 7, is_paid=False)],
        [COURT, OPEN, OPEN, OPEN],
    ),
    "a voucher takes the place of a claim and of what is held": (
        [claimed(A, B, seq=2), hold(A), final(7, seq=2), claimed(D), REPLACED, voucher(5, 8)],
        [paid(8), paid(7), paid(8), paid(8)],
    ),
    "a voucher pays what was free and refunded": (
        [claimed(A, C, seq=4), hold(A), final(7, seq=4), resolved(A, 8, is_paid=False), voucher(4, 9)],
        [paid(9), paid(9), paid(7), OPEN],
    ),
    "the next claim leaves what the last one decided": (
        [claimed(A, seq=1), hold(A), final(6, seq=1), claimed(D), final(7)],
        [WAITING, FREE, FREE, paid(7)],
    ),
    "a receipt nobody here has seen": (
        [claimed("0xff", D), hold("0xff"), final(7), resolved("0xff", 8, is_paid=True)],
        [FREE, FREE, FREE, paid(7)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_events_decide(name: str) -> None:
    events, expected = CASES[name]
    assert verdicts(events, BILLS) == expected

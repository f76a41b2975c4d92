"""Which receipt a `ClaimResolved` is about, by the court's events around it."""

from __future__ import annotations

from typing import Any

import pytest

from marketplace.chain.codec import ChainEvent
from marketplace.chain.decisions import joined
from marketplace.protocol.errors import ChainTrouble
from marketplace.protocol.hexes import ZERO32

A, B = "0x" + "aa" * 32, "0x" + "bb" * 32


def at(index: int, name: str, tx: int = 1, **args: Any) -> ChainEvent:
    return ChainEvent(
        name=name,
        args=args,
        contract="Court" if name.startswith("Case") else "Escrow",
        block_number=3,
        block_hash=ZERO32,
        tx_hash=tx.to_bytes(32, "big"),
        log_index=index,
    )


def resolved(index: int, *, is_paid: bool, tx: int = 1) -> ChainEvent:
    return at(index, "ClaimResolved", tx, sessionId="0x5e", amount=7, isPaid=is_paid)


def held(index: int, receipt: str, tx: int = 1) -> ChainEvent:
    return at(index, "ClaimHeld", tx, sessionId="0x5e", receiptHash=receipt, amount=7)


def upheld(index: int, case: str, refunded: int = 7, tx: int = 1) -> ChainEvent:
    return at(index, "CaseUpheld", tx, caseId=case, refunded=refunded, slashed=0, award=0)


def receipts(*events: ChainEvent) -> list[str]:
    ours = [event for event in events if event.contract == "Escrow"]
    told = joined(ours, [event for event in events if event.contract == "Court"])
    assert [(e.name, e.log_index) for e in told] == [(e.name, e.log_index) for e in ours]
    return [event.args["receiptHash"] for event in told if event.name == "ClaimResolved"]


@pytest.mark.parametrize("end", ["CaseDismissed", "CaseVoid"])
def test_case_that_ends_without_penalty_says_so_before_its_money_moves(end: str) -> None:
    assert receipts(at(1, end, caseId=A), resolved(2, is_paid=end == "CaseDismissed")) == [A]


def test_case_that_is_upheld_says_so_after_its_money_moved() -> None:
    assert receipts(resolved(1, is_paid=False), upheld(4, A)) == [A]


def test_receipt_that_a_proof_strikes_is_the_one_held_before() -> None:
    final = at(2, "ClaimFinalised", sessionId="0x5e", throughSeq=1, amount=0, paid=0)
    assert receipts(held(1, A), final, resolved(3, is_paid=False)) == [A]


def test_several_in_one_transaction_are_told_apart() -> None:
    both = [
        at(1, "CaseDismissed", caseId=A),
        resolved(2, is_paid=True),
        resolved(3, is_paid=False),
        upheld(4, B),
    ]
    assert receipts(*both) == [A, B]
    assert receipts(held(1, A), at(2, "CaseVoid", caseId=B), resolved(3, is_paid=False)) == [B]
    assert receipts(held(1, A), resolved(2, is_paid=False), upheld(3, B)) == [B]


def test_case_that_moved_no_money_is_not_taken_for_the_one_that_did() -> None:
    assert receipts(at(1, "CaseVoid", caseId=A), resolved(2, is_paid=False), upheld(3, B, refunded=0)) == [A]


def test_nothing_is_guessed_while_the_courts_events_are_missing() -> None:
    with pytest.raises(ChainTrouble, match="decision in block 3"):
        receipts(resolved(2, is_paid=False))
    with pytest.raises(ChainTrouble, match="decision in block 3"):
        receipts(held(1, A, tx=1), resolved(2, is_paid=False, tx=2), upheld(3, B, tx=3))


def test_events_without_a_decision_stay_as_they_are() -> None:
    assert joined([held(1, A)], [upheld(2, B)]) == [held(1, A)]

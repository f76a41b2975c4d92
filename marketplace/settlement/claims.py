"""What the chain has decided about each order of a session; pure.

A voucher pays every order up to its seq, also one that a claim left out or the court refunded: its amount is
that of all receipts. A claim pays the receipts it lists; what it leaves out below its last is free, and what
is disputed waits for the court.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from marketplace.protocol.phases import EndReason


class Payment(Protocol):
    """One of the events that decide; `args` are Solidity's names."""

    @property
    def name(self) -> str:
        """Solidity's name."""

    @property
    def tx_hash(self) -> str:
        """Transaction it is of."""

    @property
    def args(self) -> dict[str, Any]:
        """Integers and `0x` hex; a `ClaimResolved` has the `receiptHash` it is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """An order with a receipt; `digest` is the receipt's, needed only where a session was claimed from."""

    seq: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Paid by a transaction, refunded for a reason, or neither so far.

    `is_waiting`: something of the session is claimed and not decided.
    """

    tx_hash: str | None = None
    refund: EndReason | None = None
    is_waiting: bool = False


_OPEN: Final = Verdict()


def verdicts(events: Iterable[Payment], bills: Sequence[Bill]) -> list[Verdict]:
    """A verdict for each bill; bills ascend by seq, events are all of a session's in chain order."""
    fold = _Fold(bills)
    for event in events:
        fold.take(event)
    return fold.result()


class _Fold:
    """Events in, verdicts out."""

    def __init__(self, bills: Sequence[Bill]) -> None:
        self._bills = bills
        self._seqs = [bill.seq for bill in bills]
        self._at = {bill.digest: index for index, bill in enumerate(bills)}
        self._found = [_OPEN] * len(bills)
        self._reached = 0  # bills before this one lie at or below what is settled
        self._passed: list[int] = []  # of those, the ones a claim did not pay
        self._claimed: set[str] = set()
        self._held: set[str] = set()

    def take(self, event: Payment) -> None:
        args = event.args
        if event.name == "VoucherSettled":
            self._pay([*self._passed, *self._reach(args["throughSeq"])], event.tx_hash)
            self._passed = []
        elif event.name == "Claimed":
            self._claimed = set(args["receiptHashes"])
        elif event.name == "ClaimReplaced":
            self._claimed, self._held = set(), set()
        elif event.name == "ClaimHeld":
            self._claimed.discard(args["receiptHash"])
            self._held.add(args["receiptHash"])
        elif event.name == "ClaimFinalised":
            self._finalise(self._reach(args["throughSeq"]), event.tx_hash)
        elif event.name == "ClaimResolved":
            self._resolve(args.get("receiptHash", ""), event.tx_hash, is_paid=args["isPaid"])

    def result(self) -> list[Verdict]:
        waits = Verdict(is_waiting=bool(self._claimed or self._held))
        return [waits if verdict is _OPEN else verdict for verdict in self._found]

    def _reach(self, through_seq: int) -> range:
        before = self._reached
        self._reached = max(before, bisect.bisect_right(self._seqs, through_seq))
        return range(before, self._reached)

    def _pay(self, indices: Iterable[int], tx_hash: str) -> None:
        for index in indices:
            if self._found[index].tx_hash is None:
                self._found[index] = Verdict(tx_hash=tx_hash)

    def _finalise(self, indices: range, tx_hash: str) -> None:
        for index in indices:
            digest = self._bills[index].digest
            if digest in self._claimed:
                self._pay([index], tx_hash)
                continue
            self._passed.append(index)
            if digest not in self._held and self._found[index] is _OPEN:
                self._found[index] = Verdict(refund=EndReason.UNCLAIMED)
        self._claimed = set()

    def _resolve(self, digest: str, tx_hash: str, *, is_paid: bool) -> None:
        self._held.discard(digest)
        index = self._at.get(digest)
        if index is None:
            return
        if is_paid:
            self._pay([index], tx_hash)
        else:
            self._found[index] = Verdict(refund=EndReason.COURT_REFUNDED)

"""What can be asked of the court, as ready calldata, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from eth_abi.abi import encode

from marketplace.chain.calls import Call
from marketplace.chain.codec import encode_call, values_of
from marketplace.chain.deployment import Deployment
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Offer, Open, Order, Receipt


class CaseState(IntEnum):
    """Where a case stands (`Cases.sol`)."""

    NONE = 0
    DEMANDED = 1
    ANSWERED = 2
    DRAWING = 3
    COMMITTING = 4
    REVEALING = 5
    UPHELD = 6
    DISMISSED = 7
    VOID = 8


class Verdict(IntEnum):
    """What a juror found (`Cases.sol`)."""

    NONE = 0
    GUILTY = 1
    CLEAR = 2
    CHALLENGER_WITHHELD = 3
    NODE_WITHHELD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A billed job, as its node signed it.

    `claimed` are the receipt hashes of the pending claim that bills it, from the event `Claimed`; none when a
    voucher or an earlier claim did.
    """

    terms: Open
    order: Order
    receipt: Receipt
    signature: bytes
    claimed: tuple[bytes, ...] = ()

    @property
    def values(self) -> tuple[Any, ...]:
        """As Solidity's `Evidence`."""
        messages = values_of(self.terms), values_of(self.order), values_of(self.receipt)
        return *messages, self.signature, list(self.claimed)


def prove_two_receipts(deployment: Deployment, first: Evidence, second: Receipt, signature: bytes) -> Call:
    """Proves that a node signed two receipts for one order."""
    values = first.values, values_of(second), signature
    return _court(deployment, "proveTwoReceipts", *values, what="prove two receipts for one order")


def prove_overcharge(deployment: Deployment, evidence: Evidence, offer: Offer) -> Call:
    """Proves that a receipt charges more than it may."""
    return _court(
        deployment, "proveOvercharge", evidence.values, values_of(offer), what="prove an overcharge"
    )


def pay_award(deployment: Deployment, order_hash: bytes) -> Call:
    """Sends a proof's award to the buyer; a contract finds it in its balance at the court."""
    return _court(deployment, "payAward", order_hash, what="pay an award")


def demand(deployment: Deployment, evidence: Evidence) -> Call:
    """Demands the response of a claimed job; needs an allowance of the bond for the court."""
    return _court(deployment, "demand", evidence.values, what="demand a response")


def answer(deployment: Deployment, case_id: bytes, response: bytes) -> Call:
    """Hands a demanded response in, sealed to the order's reply key; 1 byte to 24 KiB."""
    return _court(deployment, "answer", case_id, response, what=f"answer with {len(response)} bytes")


def refer(deployment: Deployment, case_id: bytes, evidence_hash: bytes) -> Call:
    """Puts a demand before jurors."""
    return _court(deployment, "refer", case_id, evidence_hash, what="refer a case to jurors")


def challenge(deployment: Deployment, evidence: Evidence, evidence_hash: bytes) -> Call:
    """Opens a judgement; needs an allowance of the bond for the court."""
    return _court(deployment, "challenge", evidence.values, evidence_hash, what="challenge a job")


def advance(deployment: Deployment, case_id: bytes) -> Call:
    """Moves a case on as far as time allows."""
    return _court(deployment, "advance", case_id, what="advance a case")


def commit(deployment: Deployment, case_id: bytes, commitment: bytes) -> Call:
    """Hands a sealed verdict in."""
    return _court(deployment, "commit", case_id, commitment, what="commit a verdict")


def commitment(case_id: bytes, round_number: int, juror: str, verdict: Verdict, salt: bytes) -> bytes:
    """What a juror hands in for a verdict; worked out here, so that nobody is told the salt too early."""
    kinds = ["bytes32", "uint8", "address", "uint8", "bytes32"]
    return keccak(encode(kinds, [case_id, round_number, juror, int(verdict), salt]))


def reveal(deployment: Deployment, case_id: bytes, verdict: Verdict, salt: bytes) -> Call:
    """Opens a verdict."""
    return _court(deployment, "reveal", case_id, int(verdict), salt, what=f"reveal {verdict.name.lower()}")


def enrol(deployment: Deployment, amount_atoms: int) -> Call:
    """Joins the pool of jurors with money of the sender; needs an allowance for the court."""
    return _court(deployment, "enrol", amount_atoms, what=f"enrol as a juror with {amount_atoms} atoms")


def resign(deployment: Deployment) -> Call:
    """Leaves the pool of jurors."""
    return _court(deployment, "resign", what="resign as a juror")


def withdraw(deployment: Deployment, amount_atoms: int) -> Call:
    """Takes money of the sender out of the court."""
    return _court(deployment, "withdraw", amount_atoms, what=f"withdraw {amount_atoms} atoms from the court")


def _court(deployment: Deployment, function: str, *values: Any, what: str) -> Call:
    return Call(to=deployment.court, data=encode_call("Court", function, *values), what=what)

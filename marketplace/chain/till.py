"""Calls of the till, and the address a quote is paid to, worked out without asking the chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from marketplace.chain.calls import Call
from marketplace.chain.codec import encode_call, values_of
from marketplace.chain.deployment import Deployment
from marketplace.protocol.hexes import checksum, from_hex, keccak
from marketplace.protocol.quotes import Quote

# EIP-1167: code that delegates every call to the address between the two parts, behind code that returns it.
_CLONE_HEAD: Final = bytes.fromhex("3d602d80600a3d3981f3363d3d373d3d3d363d73")
_CLONE_TAIL: Final = bytes.fromhex("5af43d82803e903d91602b57fd5bf3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """A signed EIP-3009 `TransferWithAuthorization` to a receiver; times are Unix seconds, exclusive."""

    payer: str
    value_atoms: int
    valid_after: int
    valid_before: int
    nonce: bytes
    signature: bytes

    @property
    def values(self) -> tuple[Any, ...]:
        """As Solidity's `Payment`."""
        times = self.valid_after, self.valid_before
        return self.payer, self.value_atoms, *times, self.nonce, self.signature


def receiver_of(deployment: Deployment, quote: Quote) -> str:
    """Where a quote is paid to (sources: EIP-1014, EIP-1167)."""
    code = _CLONE_HEAD + from_hex(deployment.receiver, 20) + _CLONE_TAIL
    words = b"\xff" + from_hex(deployment.till, 20) + quote.struct_hash + keccak(code)
    return checksum(keccak(words)[12:])


def pay(deployment: Deployment, quote: Quote, paid: Paid) -> Call:
    """Moves the payment and opens the quote's session, all or nothing; anyone may send it."""
    what = f"take {quote.amount_atoms} atoms of {paid.payer} for one job"
    return _till(deployment, "pay", values_of(quote), paid.values, what=what)


def pay_pushed(deployment: Deployment, quote: Quote, paid: Paid, key_signature: bytes) -> Call:
    """As `pay`, when the payment is in the receiver already; needs the key's signed `Payer`."""
    what = f"open the session that {paid.payer} paid for"
    return _till(deployment, "payPushed", values_of(quote), paid.values, key_signature, what=what)


def recover(deployment: Deployment, quote: Quote, paid: Paid, key_signature: bytes = b"") -> Call:
    """Sends a pushed payment that opened no session back; a day after `pay_before` no signature is needed."""
    what = f"return {paid.value_atoms} atoms to {paid.payer}"
    return _till(deployment, "recover", values_of(quote), paid.values, key_signature, what=what)


def refund(deployment: Deployment, quote: Quote) -> Call:
    """Ends a paid quote's session if it is time, and sends what it left to whoever paid."""
    return _till(deployment, "refund", values_of(quote), what="refund what a job did not cost")


def take_awards(deployment: Deployment, quote: Quote) -> Call:
    """Sends what the court awarded to the buyer of a paid quote's session to whoever paid."""
    return _till(deployment, "takeAwards", values_of(quote), what="send an award on to whoever paid")


def _till(deployment: Deployment, function: str, *values: Any, what: str) -> Call:
    return Call(to=deployment.till, data=encode_call("Till", function, *values), what=what)

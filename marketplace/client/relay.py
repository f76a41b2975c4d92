"""Wishes a buyer signed for others to send: key grants and deposits. The buyer needs no gas."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from marketplace.chain import calls
from marketplace.chain.calls import Authorization, Call
from marketplace.chain.deployment import Deployment
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol.eip712 import Domain, Message
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex, typed_address
from marketplace.protocol.messages import KeyGrant
from marketplace.protocol.signing import BadSignature, signer_of
from marketplace.protocol.tokens import ReceiveWithAuthorization
from marketplace.protocol.transactions import TxRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedGrant:
    """A key grant with the buyer's signature."""

    message: KeyGrant
    signature: bytes
    domain: Domain

    def call(self, deployment: Deployment) -> Call:
        """The transaction that hands it in."""
        return calls.set_key_by_signature(deployment, self.message, self.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDeposit:
    """An EIP-3009 authorization to the escrow with the buyer's signature; `domain` is the escrow's."""

    message: ReceiveWithAuthorization
    signature: bytes
    domain: Domain

    def call(self, deployment: Deployment) -> Call:
        """The transaction that fetches it into the buyer's account."""
        its = self.message
        authorization = Authorization(
            buyer=its.payer,
            amount_atoms=its.value_atoms,
            valid_after=its.valid_after,
            valid_before=its.valid_before,
            nonce=its.nonce,
            signature=self.signature,
        )
        return calls.deposit_with_authorization(deployment, authorization)


Signed = SignedGrant | SignedDeposit
_Kind = tuple[type[SignedGrant] | type[SignedDeposit], type[Message]]
_KINDS: Final[dict[str, _Kind]] = {
    "grant": (SignedGrant, KeyGrant),
    "deposit": (SignedDeposit, ReceiveWithAuthorization),
}


def to_json(signed: Signed) -> dict[str, Any]:
    """The form `from_json` reads."""
    kind = next(name for name, (made, _) in _KINDS.items() if isinstance(signed, made))
    return {
        "kind": kind,
        "domain": {"chain_id": signed.domain.chain_id, "escrow": signed.domain.escrow},
        "message": signed.message.to_json(),
        "signature": to_hex(signed.signature),
    }


def from_json(text: str) -> Signed:
    """A signed wish of JSON text.

    Raises:
        BadRequest: it is none.
    """
    try:
        data = json.loads(text)
        made, message = _KINDS[data["kind"]]
        domain = Domain(int(data["domain"]["chain_id"]), typed_address(data["domain"]["escrow"]))
        read: Any = message.from_json(data["message"])
        _must_fit_the_escrow(read)
        found: Signed = made(message=read, signature=from_hex(data["signature"]), domain=domain)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"this is no signed grant or deposit ({error})",
            hint="Take what `watt keys create --gasless` or `watt wallet deposit --gasless` printed.",
        ) from error
    return found


def submit(wallet: BuyerWallet, signed: Signed) -> TxRecord:
    """Sends a buyer's signed wish at this wallet's cost; the wallet gains nothing by it.

    Raises:
        BadRequest: it is for other contracts, was altered, came too late, or is overtaken.
        ChainTrouble: not confirmed in time.
    """
    here = wallet.deployment
    if signed.domain != here.domain:
        raise _refused(f"it is for the escrow {signed.domain.escrow} on chain {signed.domain.chain_id}")
    if isinstance(signed, SignedGrant):
        _check_grant(wallet, signed)
    return wallet.send(signed.call(here))


def _must_fit_the_escrow(message: Message) -> None:
    # The token takes amounts of 256 bits, the escrow of half as many.
    if isinstance(message, ReceiveWithAuthorization) and message.value_atoms >> 128:
        raise ValueError("value must fit uint128")


def _check_grant(wallet: BuyerWallet, signed: SignedGrant) -> None:
    """A grant that is overtaken would cost gas and change nothing."""
    its = signed.message
    newest = wallet.chain.key(its.buyer, its.key).nonce
    if its.nonce <= newest:
        raise _refused(f"its number is {its.nonce}, and the escrow has seen {newest}: it was used or revoked")
    try:
        signer = signer_of(its, signed.domain, signed.signature)
    except BadSignature:
        return  # A contract's signature has a form of its own, which only the contract knows.
    if signer != its.buyer and not wallet.chain.code(its.buyer):
        raise _refused(f"{signer} signed it, not its buyer {its.buyer}")


def _refused(why: str) -> BadRequest:
    return BadRequest(
        ErrorCode.BAD_SIGNATURE,
        f"the escrow would not take this: {why}",
        hint="Ask the buyer to sign a fresh one.",
    )

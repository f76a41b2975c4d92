"""Which session pays for which quote, and what an `Open` must satisfy here. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.eip712 import Domain, Message
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.messages import Open, TopUp
from marketplace.protocol.signing import BadSignature, signer_of

# A voucher for a job that ends at its deadline must still reach the chain before the session expires.
EXPIRY_MARGIN_MS: Final = 5_000
SIGNATURE_BYTES: Final = 65
PROOF_STEP_BYTES: Final = 32
# A list of every node there can be has no longer proof; more would be calldata at the gateway's cost.
MOST_PROOF_BYTES: Final = 32 * PROOF_STEP_BYTES
_INT64: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One node's price for a job, in the order they are preferred."""

    node_id: int
    epoch: int
    ceiling_atoms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Purse:
    """One session of the paying key, and what orders may still reserve of it."""

    session_id: str
    node_id: int
    key_epoch: int
    left_atoms: int
    expires_at: int


def choose(prices: Sequence[Price], purses: Sequence[Purse], deadline_ms: int) -> tuple[int, Purse]:
    """The first price some session covers, by its place, and that session.

    Raises:
        BadRequest: no session fits; the detail says what would help.
    """
    for place, price in enumerate(prices):
        for purse in purses:
            if _fits(purse, price, deadline_ms):
                return place, purse
    raise _lacking(prices, purses, deadline_ms)


def check_open(terms: Open, signature: bytes, domain: Domain, now_at: int, max_session_seconds: int) -> None:
    """Whether the escrow could accept this.

    Raises:
        BadRequest: too late, too long, too large, or signed by neither buyer nor key.
    """
    if terms.open_before <= now_at:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "open.openBefore has passed")
    if not now_at < terms.expires_at <= now_at + max_session_seconds:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"open.expiresAt must be within {max_session_seconds} s from now"
        )
    if not 0 < terms.amount_atoms <= _INT64:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "open.amount must be above zero and below 2^63")
    check_payer(terms, signature, domain, terms)


def check_top_up(wish: TopUp, terms: Open, signature: bytes, domain: Domain) -> None:
    """Whether the escrow could accept this top-up. Raises `BadRequest`."""
    if terms.digest(domain) != wish.session_id:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "open is not the one that session was opened with")
    if wish.deposited_atoms > _INT64:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "deposited must be below 2^63")
    check_payer(wish, signature, domain, terms)


def check_payer(message: Message, signature: bytes, domain: Domain, terms: Open) -> None:
    """Raises `BadRequest` unless the session's buyer signed, or its key.

    Behind a key's signature may stand a proof of its node list; whether its caps allow it, the escrow says.
    """
    own, proof = signature[:SIGNATURE_BYTES], signature[SIGNATURE_BYTES:]
    is_proof = len(proof) % PROOF_STEP_BYTES == 0 and len(proof) <= MOST_PROOF_BYTES
    if not is_proof or _signed_by(message, own, domain) != terms.key:
        check_signed(message, signature, domain, terms.buyer)


def check_signed(message: Message, signature: bytes, domain: Domain, address: str) -> None:
    """Raises `BadRequest` unless `address` signed the message."""
    found = _signed_by(message, signature, domain)
    if found != address:
        name = type(message).__name__
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"{name} must be signed by {address}, was by {found}")


def _signed_by(message: Message, signature: bytes, domain: Domain) -> str:
    try:
        return signer_of(message, domain, signature)
    except BadSignature as error:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, str(error)) from error


def _fits(purse: Purse, price: Price, deadline_ms: int) -> bool:
    return (
        purse.node_id == price.node_id
        and purse.key_epoch == price.epoch
        and purse.left_atoms >= price.ceiling_atoms
        and _lasts(purse, deadline_ms)
    )


def _lasts(purse: Purse, deadline_ms: int) -> bool:
    return purse.expires_at * 1000 > deadline_ms + EXPIRY_MARGIN_MS


def _lacking(prices: Sequence[Price], purses: Sequence[Purse], deadline_ms: int) -> BadRequest:
    epochs = {price.node_id: price.epoch for price in prices}
    usable = [p for p in purses if epochs.get(p.node_id) == p.key_epoch]
    first = prices[0]
    if not usable:
        detail = f"this key has no session with node {first.node_id}, which asks {first.ceiling_atoms} atoms"
        return BadRequest(ErrorCode.NO_SESSION, detail, node_id=first.node_id)
    lasting = [p for p in usable if _lasts(p, deadline_ms)]
    if not lasting:
        return BadRequest(ErrorCode.SESSION_EXPIRED, "the session ends before this job could")
    most = max(lasting, key=lambda purse: purse.left_atoms)
    needs = min(price.ceiling_atoms for price in prices if price.node_id == most.node_id)
    detail = f"{most.left_atoms} atoms are left, this job may cost {needs}: top up session {most.session_id}"
    return BadRequest(ErrorCode.SESSION_UNDERFUNDED, detail, session_id=most.session_id)

"""Quotes: signed offers priced for one request, checked before anything is signed for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from marketplace.client.views import ChainView
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import ErrorCode, ProviderFault
from marketplace.protocol.hexes import from_hex
from marketplace.protocol.messages import Offer
from marketplace.protocol.payloads import Payload, units_in_ceiling, units_out_ceiling
from marketplace.protocol.pricing import full_price_down
from marketplace.protocol.sealed import can_seal_to
from marketplace.protocol.signing import BadSignature, signer_of

if TYPE_CHECKING:
    from marketplace.chain.client import NodeState


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One node's offer for one request. The offer binds the node; the rest is the gateway's word."""

    node_id: int
    offer: Offer
    offer_signature: bytes
    ceiling_atoms: int
    units_in_ceiling: int
    units_out_ceiling: int
    reason: str
    eligible: bool
    why_not: str

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Quote of the gateway's JSON.

        Raises:
            ProviderFault: not readable.
        """
        try:
            return cls(
                node_id=int(data["node_id"]),
                offer=Offer.from_json(data["offer"]),
                offer_signature=from_hex(data["offer_signature"]),
                ceiling_atoms=int(data["ceiling_atoms"]),
                units_in_ceiling=int(data["units_in_ceiling"]),
                units_out_ceiling=int(data["units_out_ceiling"]),
                reason=str(data.get("reason") or ""),
                eligible=data["eligible"] is True,
                why_not=str(data.get("why_not") or ""),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ProviderFault(
                ErrorCode.INTERNAL, f"the gateway sent a quote that cannot be read: {error}"
            ) from error


def check_offer(quote: Quote, domain: Domain, chain: ChainView, now_ms: int) -> NodeState:
    """The node as the chain has it, for a current offer that its own key there signed.

    Raises:
        ProviderFault: another signer, another node, an unknown node, or an expired offer.
    """
    node = chain.node(quote.node_id)
    if node is None:
        raise ProviderFault(
            ErrorCode.UNKNOWN_NODE, f"node {quote.node_id} is not registered", node=quote.node_id
        )
    if quote.offer.node_id != quote.node_id:
        raise _bad_offer(quote, f"its offer is of node {quote.offer.node_id}")
    try:
        signer = signer_of(quote.offer, domain, quote.offer_signature)
    except BadSignature as error:
        raise _bad_offer(quote, str(error)) from error
    if signer != node.signer:
        raise _bad_offer(quote, f"{signer} signed its offer; its key is {node.signer}")
    if quote.offer.valid_until * 1000 <= now_ms:
        raise ProviderFault(ErrorCode.OFFER_EXPIRED, f"the offer of node {quote.node_id} has expired")
    return node


def check_can_seal(node: NodeState, node_id: int) -> None:
    """Raises `ProviderFault` (`seal_unusable`) for a node without a key to seal to; nothing is sent to it."""
    if not can_seal_to(node.encryption_key):
        raise ProviderFault(
            ErrorCode.SEAL_UNUSABLE,
            f"node {node_id} has no key in the registry that a request could be sealed to",
            hint="Name another node, or order without a seal.",
            node=node_id,
        )


def ceiling_atoms(offer: Offer, payload: Payload, counted: int | None = None) -> int:
    """Most this request can cost under this offer; our own sum, not the gateway's.

    `counted` are its input units as quoted; one above our own bound does not count. A node whose own count is
    higher refuses the order, and nothing is lost.
    """
    bound = units_in_ceiling(payload)
    units_in = bound if counted is None else min(bound, counted)
    return full_price_down(offer, units_in, units_out_ceiling(payload))


def _bad_offer(quote: Quote, why: str) -> ProviderFault:
    return ProviderFault(ErrorCode.BAD_SIGNATURE, f"node {quote.node_id}: {why}", node=quote.node_id)

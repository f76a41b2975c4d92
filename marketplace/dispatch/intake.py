"""Nodes at the gate: who they are, what they offer, that they still work. Load → decide → apply."""

from __future__ import annotations

from marketplace.dispatch.step import frame_of
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.messages import Hello, Offer
from marketplace.protocol.signing import BadSignature, signer_of
from marketplace.protocol.wire import Heartbeat, HelloFrame, OfferedModel, Offers, OrderFrame, Signed
from marketplace.store import jobs, offers
from marketplace.store.offers import Pulse
from marketplace.store.tables import NodeModelRow, NodeRow, OfferRow, Tx

HELLO_SKEW_MS = 60_000


def greet(
    tx: Tx, frame: HelloFrame, challenge: bytes, domain: Domain, *, now_ms: int, min_stake_atoms: int
) -> int:
    """The id of the node that proved itself.

    Raises:
        BadRequest: unknown, below the minimum stake, or not signed by its key on-chain.
    """
    try:
        hello = Hello.decode(frame.hello.message)
    except ValueError as error:
        raise BadRequest(ErrorCode.MALFORMED_BODY, f"hello: {error}") from error
    if hello.challenge != challenge:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, "the hello answers another challenge")
    if abs(hello.issued_at_ms - now_ms) > HELLO_SKEW_MS:
        raise BadRequest(ErrorCode.CLOCK_SKEW, "the hello's clock is a minute off")
    node = offers.node(tx, hello.node_id)
    # Epoch 0: a reorganisation took the node back.
    if node is None or node.epoch == 0:
        raise BadRequest(ErrorCode.UNKNOWN_NODE, f"node {hello.node_id} is not registered on this chain")
    if _signed_by(hello, frame.hello.signature, domain) != node.signer:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"node {node.node_id} must sign with {node.signer}")
    if node.stake_atoms < min_stake_atoms:
        raise BadRequest(
            ErrorCode.UNKNOWN_NODE, f"{node.stake_atoms} atoms are staked, the least is {min_stake_atoms}"
        )
    return node.node_id


def restart(tx: Tx, until_ms: int) -> None:
    """Nobody has a link yet, and every lease lasts at least until `until_ms`."""
    offers.leave_all(tx)
    jobs.grace(tx, until_ms)


def arrive(tx: Tx, node_id: int, now_ms: int) -> list[tuple[str, OrderFrame]]:
    """The node's link is up; gives the orders it never confirmed, to be sent again."""
    offers.arrive(tx, node_id, now_ms)
    found = jobs.open_of_node(tx, node_id)
    return [(order.order_hash, frame_of(order, job)) for order, job in found if not order.accepted]


def beat(tx: Tx, node_id: int, frame: Heartbeat, now_ms: int, until_ms: int) -> list[bytes]:
    """Takes a node's load; gives the orders whose lease now lasts until `until_ms`."""
    pulse = Pulse(
        free_slots=frame.free_slots,
        queue_depth=frame.queue_depth,
        loaded=frozenset(to_hex(model) for model in frame.loaded),
        draining=frame.draining,
    )
    offers.beat(tx, node_id, pulse, now_ms)
    if not frame.running:
        return []
    renewed = jobs.renew(tx, node_id, [to_hex(order) for order in frame.running], until_ms)
    return [from_hex(order, 32) for order in renewed]


def take_offers(tx: Tx, node_id: int, frame: Offers, domain: Domain, now_ms: int) -> None:
    """Replaces what a node offers.

    Raises:
        BadRequest: one of the offers is not the node's, has expired, or is for a model it does not list.
    """
    node = offers.node(tx, node_id)
    if node is None:
        raise BadRequest(ErrorCode.UNKNOWN_NODE)
    models = {to_hex(model.model_id): model for model in frame.models}
    rows = [_offer_row(signed, node, models, domain, now_ms) for signed in frame.offers]
    offers.replace(tx, node_id, rows, [_model_row(node_id, model) for model in models.values()])


def _offer_row(
    signed: Signed, node: NodeRow, models: dict[str, OfferedModel], domain: Domain, now_ms: int
) -> OfferRow:
    try:
        offer = Offer.decode(signed.message)
    except ValueError as error:
        raise BadRequest(ErrorCode.MALFORMED_BODY, f"offer: {error}") from error
    if offer.node_id != node.node_id:
        raise BadRequest(ErrorCode.ORDER_MISDIRECTED, f"the offer is of node {offer.node_id}")
    if _signed_by(offer, signed.signature, domain) != node.signer:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"an offer must be signed by {node.signer}")
    if offer.valid_until * 1000 <= now_ms:
        raise BadRequest(ErrorCode.OFFER_EXPIRED)
    if to_hex(offer.model_id) not in models:
        raise BadRequest(ErrorCode.UNKNOWN_MODEL, "an offer is for a model that is not listed")
    return OfferRow(
        offer_hash=to_hex(offer.digest(domain)),
        node_id=node.node_id,
        model_id=to_hex(offer.model_id),
        message=signed.message,
        signature=signed.signature,
        valid_until=offer.valid_until,
        current=True,
        received_at_ms=now_ms,
    )


def _model_row(node_id: int, model: OfferedModel) -> NodeModelRow:
    if len(model.model_id) != 32:
        raise BadRequest(ErrorCode.MALFORMED_BODY, "a model id is 32 bytes")
    return NodeModelRow(
        node_id=node_id,
        model_id=to_hex(model.model_id),
        name=model.name,
        task=model.task,
        context_tokens=model.context_tokens,
        loaded=model.loaded,
        canary_bps=model.canary_bps,
    )


def _signed_by(message: Hello | Offer, signature: bytes, domain: Domain) -> str | None:
    try:
        return signer_of(message, domain, signature)
    except BadSignature:
        return None

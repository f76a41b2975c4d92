"""Whether this node takes an order; pure. Every check comes before any work, and a refusal stores nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex
from marketplace.protocol.merkle import request_hash
from marketplace.protocol.messages import Offer, Order
from marketplace.protocol.payloads import Payload, parse_payload, units_out_ceiling
from marketplace.protocol.pricing import full_price_down
from marketplace.protocol.signing import BadSignature, signer_of
from marketplace.protocol.wire import OrderFrame

MAX_SKEW_MS: Final = 2_000
# What a signed 64-bit column holds; no session can hold more than twice that.
MAX_AMOUNT_ATOMS: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What this node agrees to.

    Attributes:
        epoch: the node's key epoch; a session of another one would not pay our receipts.
        max_job_ms: longest time from now to an order's deadline.
        max_session_exposed_atoms: delivered or in flight without a voucher, in one session.
        max_node_exposed_atoms: the same over all sessions.
        max_unfinished: orders accepted but not receipted.
    """

    node_id: int
    epoch: int
    domain: Domain
    max_job_ms: int
    max_session_exposed_atoms: int
    max_node_exposed_atoms: int
    max_unfinished: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """What the chain says of the order's session; `expires_at` is Unix seconds."""

    node_id: int
    key_epoch: int
    deposited_atoms: int
    expires_at: int
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """What is promised already.

    Attributes:
        vouchered_atoms: the session's newest voucher, through `vouchered_seq`.
        owed_atoms: its receipts after that voucher.
        in_flight_atoms: maximum amounts of its unfinished orders.
        node_exposed_atoms: owed and in flight over all sessions that can still pay.
        unfinished: orders of the node without a receipt.
    """

    vouchered_seq: int
    vouchered_atoms: int
    owed_atoms: int
    in_flight_atoms: int
    node_exposed_atoms: int
    unfinished: int


def decode_order(frame: OrderFrame) -> Order:
    """The order in a frame. Raises `BadRequest` when its bytes are not canonical."""
    try:
        return Order.decode(frame.order.message)
    except ValueError as error:
        raise BadRequest(ErrorCode.MALFORMED_BODY, f"order: {error}") from error


def order_key(order: Order, frame: OrderFrame, domain: Domain) -> str:
    """The key that signed the order. Raises `BadRequest` when nobody did."""
    try:
        return signer_of(order, domain, frame.order.signature)
    except BadSignature as error:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"order: {error}") from error


def check_time(order: Order, terms: Terms, now_ms: int) -> None:
    """Passes an order signed just now whose deadline is ahead, and not too far.

    Raises:
        BadRequest: `clock_skew`, `order_expired` or `invalid_request`.
    """
    skew_ms = now_ms - order.issued_at_ms
    if abs(skew_ms) > MAX_SKEW_MS:
        raise BadRequest(ErrorCode.CLOCK_SKEW, f"the order was signed {skew_ms} ms ago by this node's clock")
    if now_ms >= order.deadline_ms:
        raise BadRequest(ErrorCode.ORDER_EXPIRED, "the deadline has passed")
    if order.deadline_ms - now_ms > terms.max_job_ms:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"the deadline is more than {terms.max_job_ms} ms ahead")
    if order.seq == 0:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "seq counts from 1")
    if order.max_amount_atoms > MAX_AMOUNT_ATOMS:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "maxAmount is above 2^63 atoms")


def check_session(order: Order, session: SessionFacts | None, terms: Terms, now_ms: int) -> SessionFacts:
    """The session, once it can pay this order.

    Raises:
        BadRequest: `unknown_session`, `order_misdirected` or `session_expired`.
    """
    if session is None:
        raise BadRequest(ErrorCode.UNKNOWN_SESSION, "no session with this whole id under the order's key")
    if session.node_id != terms.node_id:
        raise BadRequest(ErrorCode.ORDER_MISDIRECTED, f"the session is of node {session.node_id}")
    if session.key_epoch != terms.epoch:
        raise BadRequest(
            ErrorCode.ORDER_MISDIRECTED,
            f"the session is of key epoch {session.key_epoch}, this node signs in {terms.epoch}",
        )
    if session.closed or now_ms // 1000 >= session.expires_at:
        raise BadRequest(ErrorCode.SESSION_EXPIRED, "the session is closed or over")
    if order.deadline_ms >= session.expires_at * 1000:
        raise BadRequest(ErrorCode.SESSION_EXPIRED, "the deadline is after the session's end")
    return session


def check_offer(order: Order, offer: Offer | None, tasks: Mapping[bytes, str]) -> Offer:
    """The offer, once it stood when the order was signed and its model is still served.

    Args:
        order: the order.
        offer: our own signed offer with the order's hash, or None.
        tasks: models served now, to their task.

    Raises:
        BadRequest: `offer_unknown`, `offer_expired` or `unknown_model`.
    """
    if offer is None:
        raise BadRequest(ErrorCode.OFFER_UNKNOWN, "this node made no such offer")
    if order.issued_at_ms >= offer.valid_until * 1000:
        raise BadRequest(ErrorCode.OFFER_EXPIRED, "the offer had ended when the order was signed")
    if offer.model_id not in tasks:
        raise BadRequest(ErrorCode.UNKNOWN_MODEL, "this node no longer serves the offer's model")
    return offer


def check_payload(
    order: Order, salt: bytes, payload: bytes, offer: Offer, tasks: Mapping[bytes, str]
) -> Payload:
    """The payload, once it is what was signed, for the offer's model.

    Raises:
        BadRequest: `request_hash_mismatch`, `invalid_request` or `unsupported`.
    """
    if len(salt) != 32 or request_hash(salt, payload) != order.request_hash:
        raise BadRequest(ErrorCode.REQUEST_HASH_MISMATCH, "salt and payload do not hash to requestHash")
    parsed = parse_payload(payload)
    if from_hex(parsed.model, 32) != offer.model_id:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "the payload names another model than the offer")
    if parsed.task != tasks[offer.model_id]:
        raise BadRequest(ErrorCode.UNSUPPORTED, f"the model does {tasks[offer.model_id]}, not {parsed.task}")
    return parsed


def check_price(order: Order, offer: Offer, payload: Payload, units_in: int) -> None:
    """Whether an order allows what a job can be billed for, with so much input.

    The node never works at a loss: the cap on a receipt never bites.

    Raises:
        BadRequest: `price_above_max`.
    """
    ceiling = full_price_down(offer, units_in, units_out_ceiling(payload))
    if ceiling > order.max_amount_atoms:
        raise BadRequest(
            ErrorCode.PRICE_ABOVE_MAX,
            f"the job may cost {ceiling} atoms, the order allows {order.max_amount_atoms}",
            ceiling_atoms=ceiling,
        )


def check_promises(order: Order, session: SessionFacts, promised: Promised, terms: Terms) -> None:
    """Passes an order that fits beside everything promised already.

    Raises:
        BadRequest: `order_replayed`, `node_busy`, `session_underfunded` or `exposure_exceeded`.
    """
    if order.seq <= promised.vouchered_seq:
        raise BadRequest(
            ErrorCode.ORDER_REPLAYED, f"a voucher ended every seq up to {promised.vouchered_seq}"
        )
    if promised.unfinished >= terms.max_unfinished:
        raise BadRequest(ErrorCode.NODE_BUSY, f"{promised.unfinished} orders wait already")
    exposed = promised.owed_atoms + promised.in_flight_atoms + order.max_amount_atoms
    total = promised.vouchered_atoms + exposed
    if total > session.deposited_atoms:
        raise BadRequest(
            ErrorCode.SESSION_UNDERFUNDED,
            f"{total} atoms would be promised of {session.deposited_atoms}",
            promised_atoms=total,
        )
    if exposed > terms.max_session_exposed_atoms:
        raise BadRequest(
            ErrorCode.EXPOSURE_EXCEEDED,
            f"{exposed} atoms would be without a voucher, this node allows {terms.max_session_exposed_atoms}",
        )
    if promised.node_exposed_atoms + order.max_amount_atoms > terms.max_node_exposed_atoms:
        raise BadRequest(ErrorCode.NODE_BUSY, "too many delivered jobs of this node wait for vouchers")

"""What an order, a receipt and a heartbeat must satisfy, and what follows when work fails. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import ValidationError

from marketplace.protocol import merkle, patterns
from marketplace.protocol.annex import AnyAnnex, exec_hash, read_annex
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Offer, Order, Receipt, ReceiptStatus
from marketplace.protocol.payloads import (
    Answer,
    Payload,
    parse_payload,
    units_in_ceiling,
    units_out_ceiling,
)
from marketplace.protocol.phases import CALLERS_FAULT, EndReason
from marketplace.protocol.pricing import amount_due, full_price_down
from marketplace.protocol.sealed import is_sealed
from marketplace.protocol.signing import BadSignature, signer_of

MAX_ATTEMPTS: Final = 3
SKEW_MS: Final = 2_000
MAX_JOB_MS: Final = 900_000
_INT64: Final = (1 << 63) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderFacts:
    """What the store knows about the session and offer an order names."""

    key: str
    node_id: int
    key_epoch: int
    closed: bool
    expires_at: int
    left_atoms: int
    through_seq: int
    offer: Offer
    node_epoch: int
    connected: bool
    draining: bool
    task: str
    model_name: str
    models: Sequence[str] = ()
    revoked: bool = False


def check_order(order: Order, signer: str, facts: OrderFacts, now_ms: int) -> None:
    """Whether an order made elsewhere may be sent on.

    Raises:
        BadRequest: with the code of the first rule it breaks; nothing happened.
    """
    if signer != facts.key:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"the order must be signed by {facts.key}, was by {signer}")
    if facts.revoked:
        raise BadRequest(ErrorCode.KEY_REVOKED, f"the session's buyer has revoked {facts.key} on the chain")
    if not patterns.allows(facts.models, facts.model_name, to_hex(facts.offer.model_id)):
        detail = f"this key may buy {', '.join(facts.models)}, not {facts.model_name}"
        raise BadRequest(ErrorCode.MODEL_NOT_ALLOWED, detail)
    if facts.offer.node_id != facts.node_id:
        raise BadRequest(
            ErrorCode.ORDER_MISDIRECTED,
            f"the offer is of node {facts.offer.node_id}, the session is with node {facts.node_id}",
        )
    _check_session(order, facts, now_ms)
    _check_times(order, facts, now_ms)
    if order.max_amount_atoms > facts.left_atoms:
        detail = f"{facts.left_atoms} atoms are left, the order may cost {order.max_amount_atoms}"
        raise BadRequest(ErrorCode.SESSION_UNDERFUNDED, detail)
    if not facts.connected:
        raise BadRequest(ErrorCode.NO_NODE, f"node {facts.node_id} has no link to this gateway")
    if facts.draining:
        raise BadRequest(ErrorCode.NODE_BUSY, f"node {facts.node_id} takes no new orders")


def check_sealed(data: bytes) -> None:
    """All that can be known of a sealed request here: its node opens it, and checks it before any work.

    Raises:
        BadRequest: it is not sealed.
    """
    if not is_sealed(data):
        raise BadRequest(ErrorCode.INVALID_REQUEST, "what is said to be sealed is not", param="sealed")


def check_payload(order: Order, offer: Offer, task: str, salt: bytes, data: bytes) -> Payload:
    """The payload an order commits to.

    Raises:
        BadRequest: other bytes than were signed, for another model, or dearer than the order allows.
    """
    if len(salt) != 32 or merkle.request_hash(salt, data) != order.request_hash:
        raise BadRequest(ErrorCode.REQUEST_HASH_MISMATCH)
    payload = parse_payload(data)
    if payload.model != "0x" + offer.model_id.hex() or payload.task != task:
        raise BadRequest(
            ErrorCode.ORDER_MISDIRECTED, "the payload is for another model or task than the offer"
        )
    # Its node counts the input, and refuses what it would lose by; here only the rest is certain.
    least = full_price_down(offer, payload.known_units_in or 0, units_out_ceiling(payload))
    if least > order.max_amount_atoms:
        detail = f"this job may cost {least} atoms and more, the order allows {order.max_amount_atoms}"
        raise BadRequest(ErrorCode.PRICE_ABOVE_MAX, detail)
    return payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An order and what came back for it. `payload` is None where it is sealed: so is what came back."""

    order: Order
    order_hash: bytes
    offer: Offer
    payload: Payload | None
    salt: bytes
    signer: str
    chunks: Sequence[bytes]
    annex: bytes


def check_receipt(receipt: Receipt, work: Work, now_ms: int) -> str:
    """How the work ended, once a signed receipt is true to its order, response and price.

    Of sealed work only what the receipt itself says: the rest its buyer checks. How it ended is "" there.

    Raises:
        ProviderFault: it is not; the detail names the broken rule.
    """
    finish = "" if work.payload is None else _check_content(receipt, work, work.payload)
    due = amount_due(
        work.offer,
        work.order,
        units_in=receipt.units_in,
        units_out=receipt.units_out,
        finished_at_ms=receipt.finished_at_ms,
        status=receipt.status,
    )
    _all_hold(
        (receipt.order_hash == work.order_hash, "it is for another order"),
        (receipt.status in set(ReceiptStatus), "its status is unknown"),
        (receipt.amount_atoms <= due, f"it asks {receipt.amount_atoms} atoms where {due} are due"),
        (receipt.finished_at_ms <= now_ms + SKEW_MS, "it is from the future"),
        (receipt.started_at_ms <= receipt.finished_at_ms, "it ends before it starts"),
        (receipt.energy_millijoules <= _INT64, "its energy is absurd"),
    )
    return finish


def receipt_signer(receipt: Receipt, domain: Domain, signature: bytes) -> str | None:
    """Who signed; None when nobody could have."""
    try:
        return signer_of(receipt, domain, signature)
    except BadSignature:
        return None


class Late(StrEnum):
    """What becomes of a good receipt for an order that had lapsed."""

    ACCEPT = "accept"
    SUPERSEDE = "supersede"


def late(
    *, finished_at_ms: int, lease_until_ms: int, job_waits: bool, covered: bool, affordable: bool
) -> Late:
    """Whether a late receipt still counts.

    It does when it was signed inside its lease, nobody else has the job now, no voucher has passed over its
    seq, and the session can still pay it.
    """
    signed_in_time = finished_at_ms <= lease_until_ms
    return Late.ACCEPT if signed_in_time and job_waits and not covered and affordable else Late.SUPERSEDE


class Next(StrEnum):
    """What a job does after one of its orders failed."""

    REISSUE = "reissue"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Aftermath:
    """Next move of a job, and the reason should it end."""

    move: Next
    reason: EndReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How one order of a job failed.

    Attributes:
        held: whether further orders can be signed here.
        cause: error code of a refusal, or finish reason of a failed receipt.
        refused: the node never took it.
        cancelled: the buyer wants no more of it.
    """

    held: bool
    attempts: int
    deadline_ms: int
    cause: str
    refused: bool
    cancelled: bool = False


def after_failure(failure: Failure, now_ms: int) -> Aftermath:
    """Failover while another node could help, else the end and its reason."""
    if failure.cancelled:
        return Aftermath(Next.FAIL, EndReason.CANCELLED)
    if failure.cause in CALLERS_FAULT:
        return Aftermath(Next.FAIL, EndReason.BAD_INPUT)
    if now_ms >= failure.deadline_ms:
        return Aftermath(Next.FAIL, EndReason.DEADLINE_PASSED)
    if failure.held and failure.attempts < MAX_ATTEMPTS:
        return Aftermath(Next.REISSUE, EndReason.NO_NODE_LEFT)
    return Aftermath(Next.FAIL, EndReason.REFUSED if failure.refused else EndReason.NODE_FAILED)


def _check_session(order: Order, facts: OrderFacts, now_ms: int) -> None:
    if facts.closed or facts.expires_at * 1000 <= now_ms:
        raise BadRequest(ErrorCode.SESSION_EXPIRED)
    if facts.key_epoch != facts.node_epoch:
        raise BadRequest(
            ErrorCode.SESSION_EXPIRED, "the node changed its key since this session was opened: open another"
        )
    if order.seq == 0 or order.seq <= facts.through_seq:
        raise BadRequest(ErrorCode.ORDER_REPLAYED, f"seqs up to {facts.through_seq} are taken")


def _check_times(order: Order, facts: OrderFacts, now_ms: int) -> None:
    if order.deadline_ms <= now_ms:
        raise BadRequest(ErrorCode.ORDER_EXPIRED)
    if abs(now_ms - order.issued_at_ms) > SKEW_MS:
        raise BadRequest(ErrorCode.CLOCK_SKEW, f"the order is {now_ms - order.issued_at_ms} ms old here")
    if order.deadline_ms > now_ms + MAX_JOB_MS:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"deadlineMs is more than {MAX_JOB_MS} ms away")
    if order.deadline_ms >= facts.expires_at * 1000:
        raise BadRequest(ErrorCode.SESSION_EXPIRED, "the session ends before the order's deadline")
    if facts.offer.valid_until * 1000 <= order.issued_at_ms:
        raise BadRequest(ErrorCode.OFFER_EXPIRED)


def _check_content(receipt: Receipt, work: Work, payload: Payload) -> str:
    """Whether request, response and annex are what the receipt says. Raises `ProviderFault`."""
    annex = _annex(work.annex)
    failed = receipt.status == ReceiptStatus.FAILED
    _all_hold(
        (receipt.response_hash == merkle.response_hash(work.salt, work.chunks), "responseHash does not fit"),
        (receipt.exec_hash == exec_hash(work.annex), "execHash does not fit the annex"),
        (receipt.units_in == annex.units_in and receipt.units_out == annex.units_out, "units differ"),
        (failed or receipt.units_in <= units_in_ceiling(payload), "it bills more input than was sent"),
        (failed or receipt.units_out <= units_out_ceiling(payload), "it bills more output than allowed"),
        (failed or _is_answer(payload, work.chunks, receipt.status), "the response does not fit the request"),
    )
    return annex.finish


def _annex(data: bytes) -> AnyAnnex:
    try:
        return read_annex(data)
    except ValidationError as error:
        raise ProviderFault(ErrorCode.RECEIPT_INVALID, "the annex is unreadable") from error


def _all_hold(*rules: tuple[bool, str]) -> None:
    for holds, complaint in rules:
        if not holds:
            raise ProviderFault(ErrorCode.RECEIPT_INVALID, complaint)


def _is_answer(payload: Payload, chunks: Sequence[bytes], status: int) -> bool:
    try:
        answer = Answer(chunks)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return payload.misfit(answer, whole=status == ReceiptStatus.DONE) is None

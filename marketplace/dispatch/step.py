"""Orders out: sign or check → store with a lease. One transaction; the caller sends after the commit."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.dispatch import rules
from marketplace.dispatch.terms import Ask, Terms
from marketplace.protocol import merkle
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.protocol.hexes import ZERO32, to_hex
from marketplace.protocol.messages import Offer, Order
from marketplace.protocol.payloads import encode_payload
from marketplace.protocol.phases import JobPhase
from marketplace.protocol.signing import BadSignature, Signer, signer_of
from marketplace.protocol.wire import OrderFrame, Signed
from marketplace.store import events, jobs, keys, offers, sessions, vouchers
from marketplace.store.offers import Listing
from marketplace.store.tables import JobRow, OrderRow, SessionRow, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where a job goes: the offer taken, and the money and seq reserved for it."""

    listing: Listing
    session_id: str
    seq: int
    ceiling_atoms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A stored order and the frame to send."""

    job_id: str
    order_hash: str
    session_id: str
    node_id: int
    frame: OrderFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The moment of an issue, and the market's terms."""

    now_ms: int
    terms: Terms


def draft(ask: Ask, job_id: str, model_id: str, model_name: str, timing: Timing) -> JobRow:
    """A held call's job, not stored yet. Raises `BadRequest` when its text can not be encoded."""
    payload = ask.payload.model_copy(update={"model": model_id})
    return JobRow(
        job_id=job_id,
        key=ask.key.address,
        held=True,
        streamed=ask.streamed,
        idempotency=ask.once.name,
        fingerprint=ask.once.fingerprint,
        retries=ask.once.retries,
        echo=ask.echo,
        task=payload.task,
        model_id=model_id,
        model_name=model_name,
        payload=encode_payload(payload),
        max_cost_atoms=ask.max_cost_atoms,
        trace_id=ask.trace_id,
        phase=JobPhase.ORDERED.value,
        created_at_ms=timing.now_ms,
        deadline_ms=timing.now_ms + timing.terms.job_timeout_ms,
        keep_until_ms=timing.now_ms + (ask.keep_ms or timing.terms.keep_ms),
    )


def draft_given(job_id: str, trace_id: str, given: Given, timing: Timing) -> JobRow:
    """The job of an order signed elsewhere; `place_signed` fills in the rest."""
    return JobRow(
        job_id=job_id,
        key="",
        held=False,
        streamed=given.streamed,
        task="",
        model_id="",
        model_name="",
        payload=b"",
        trace_id=trace_id,
        phase=JobPhase.ORDERED.value,
        created_at_ms=timing.now_ms,
        deadline_ms=0,
        keep_until_ms=timing.now_ms + (given.keep_ms or timing.terms.keep_ms),
    )


def issue(
    tx: Tx, job: JobRow, seat: Seat, key: Signer, salt: bytes, domain: Domain, timing: Timing
) -> Issued:
    """Signs and stores the next order of a held job; a fresh job is stored with it.

    Raises:
        LostRace: the job moved on since it was read.
    """
    order = Order(
        session_id=bytes.fromhex(seat.session_id[2:]),
        seq=seat.seq,
        offer_hash=bytes.fromhex(seat.listing.offer_hash[2:]),
        request_hash=merkle.request_hash(salt, job.payload),
        max_amount_atoms=seat.ceiling_atoms,
        issued_at_ms=timing.now_ms,
        deadline_ms=job.deadline_ms,
        reply_key=ZERO32,
    )
    row = _order_row(order, job, seat.listing, salt, domain, timing)
    row.signature = key.sign(order, domain)
    if job.attempts == 0:
        _first(tx, job, row.order_hash)
    else:
        jobs.move(tx, job, JobPhase.LEASED, order_hash=row.order_hash, attempts=row.attempt)
    jobs.add_order(tx, row)
    return _issued(row, job)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """An order made and signed elsewhere, with the payload under it, and how its buyer wants it done.

    A `sealed` one has no salt here, and for its payload what only its node can open.
    """

    order: Order
    signature: bytes
    salt: bytes
    payload: bytes
    sealed: bool = False
    streamed: bool = False
    keep_ms: int | None = None


def place_signed(tx: Tx, given: Given, fresh: JobRow, domain: Domain, timing: Timing) -> Issued:
    """Checks, reserves and stores an order whose key is not held here; `fresh` is its job, half filled.

    Raises:
        BadRequest: the first rule it breaks; nothing is stored.
        LostRace: another order took the money first.
    """
    order = given.order
    session, listing = _named(tx, order)
    facts = _facts(tx, session, listing)
    rules.check_order(order, _signer(given, domain), facts, timing.now_ms)
    if given.sealed:
        rules.check_sealed(given.payload)
    else:
        rules.check_payload(order, listing.offer, listing.task, given.salt, given.payload)
    if jobs.order_at(tx, session.session_id, order.seq) is not None:
        raise BadRequest(ErrorCode.ORDER_REPLAYED, f"seq {order.seq} of this session has another order")
    sessions.reserve_at(tx, session.session_id, order.max_amount_atoms, order.seq)
    job = fresh
    # Another task than the offer's is refused: here, or of a sealed request by its node.
    job.key, job.task, job.payload = session.key, listing.task, given.payload
    job.model_id, job.model_name = listing.model_id, listing.model_name
    job.max_cost_atoms, job.deadline_ms = order.max_amount_atoms, order.deadline_ms
    row = _order_row(order, job, listing, given.salt, domain, timing)
    row.signature = given.signature
    _first(tx, job, row.order_hash)
    jobs.add_order(tx, row)
    return _issued(row, job)


def frame_of(order: OrderRow, job: JobRow) -> OrderFrame:
    """The frame of a stored order; the same each time but for its lease."""
    return OrderFrame(
        job_id=job.job_id,
        trace_id=job.trace_id,
        order=Signed(message=order.message, signature=order.signature),
        salt=order.salt,
        payload=job.payload,
        lease_until_ms=order.lease_until_ms,
    )


def _first(tx: Tx, job: JobRow, order_hash: str) -> None:
    job.phase, job.order_hash, job.attempts = JobPhase.LEASED.value, order_hash, 1
    jobs.add(tx, job)


def _named(tx: Tx, order: Order) -> tuple[SessionRow, Listing]:
    session = sessions.find(tx, to_hex(order.session_id))
    if session is None:
        raise BadRequest(ErrorCode.UNKNOWN_SESSION)
    offer_hash = to_hex(order.offer_hash)
    found = offers.listings(tx, offer_hash=offer_hash)
    if found:
        return session, found[0]
    if offers.find(tx, offer_hash) is None:
        raise BadRequest(ErrorCode.OFFER_UNKNOWN)
    raise BadRequest(ErrorCode.OFFER_EXPIRED, "its node no longer offers this model")


def _facts(tx: Tx, session: SessionRow, listing: Listing) -> rules.OrderFacts:
    voucher = vouchers.find(tx, session.session_id)
    return rules.OrderFacts(
        key=session.key,
        node_id=session.node_id,
        key_epoch=session.key_epoch,
        closed=session.closed,
        expires_at=session.expires_at,
        left_atoms=sessions.left_atoms(session),
        through_seq=max(session.through_seq, voucher.through_seq if voucher else 0),
        offer=listing.offer,
        node_epoch=listing.epoch,
        connected=listing.connected,
        draining=listing.draining,
        task=listing.task,
        model_name=listing.model_name,
        models=keys.granted_models(tx, session.buyer, session.key),
        revoked=session.buyer != session.key and events.is_revoked(tx, session.buyer, session.key),
    )


def _signer(given: Given, domain: Domain) -> str:
    try:
        return signer_of(given.order, domain, given.signature)
    except BadSignature as error:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, str(error)) from error


def _order_row(
    order: Order, job: JobRow, listing: Listing, salt: bytes, domain: Domain, timing: Timing
) -> OrderRow:
    return OrderRow(
        order_hash=to_hex(order.digest(domain)),
        job_id=job.job_id,
        attempt=job.attempts + 1,
        session_id=to_hex(order.session_id),
        seq=order.seq,
        node_id=listing.node_id,
        signer=listing.signer,
        offer_hash=listing.offer_hash,
        salt=salt,
        message=order.encode(),
        signature=b"",
        max_amount_atoms=order.max_amount_atoms,
        issued_at_ms=order.issued_at_ms,
        lease_until_ms=timing.now_ms + timing.terms.lease_ms,
    )


def _issued(row: OrderRow, job: JobRow) -> Issued:
    return Issued(
        job_id=job.job_id,
        order_hash=row.order_hash,
        session_id=row.session_id,
        node_id=row.node_id,
        frame=frame_of(row, job),
    )


def offer_of(tx: Tx, offer_hash: str) -> Offer:
    """The signed offer behind a stored order."""
    row = offers.find(tx, offer_hash)
    if row is None:
        raise Broken(ErrorCode.INTERNAL, f"offer {offer_hash} of a stored order is gone")
    return offers.read_offer(row)

"""What comes back for an order: accepted, refused, receipt, silence. Load → decide → apply, once each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marketplace.dispatch import rules
from marketplace.dispatch.step import offer_of
from marketplace.protocol import ids
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Order, Receipt, ReceiptStatus
from marketplace.protocol.payloads import parse_payload
from marketplace.protocol.phases import OPEN, EndReason, JobPhase
from marketplace.protocol.sealed import is_sealed
from marketplace.protocol.wire import Delivered, Frame, Problem, ReceiptFrame, Superseded
from marketplace.store import jobs, receipts, sessions, vouchers
from marketplace.store.jobs import OrderState
from marketplace.store.tables import FaultRow, JobRow, OrderRow, ReceiptRow, Tx

_REASONS = {ReceiptStatus.DONE: EndReason.DONE, ReceiptStatus.CUT_SHORT: EndReason.CUT_SHORT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a committed return asks of the caller.

    Attributes:
        job: as it stands now.
        reply: frame for the node that sent a receipt.
        ended: the job has come to an end its callers wait for.
        reissue: the job looks for another node.
        session_id: session whose prefix of ended seqs may have grown.
    """

    job: JobRow
    session_id: str
    reply: Frame | None = None
    ended: bool = False
    reissue: bool = False


def own_order(tx: Tx, node_id: int, order_hash: str) -> OrderRow:
    """An order of this node.

    Raises:
        BadRequest: unknown, or another node's.
    """
    order = jobs.order(tx, order_hash)
    if order is None or order.node_id != node_id:
        raise BadRequest(ErrorCode.ORDER_MISDIRECTED, f"order {order_hash} is not one of yours")
    return order


def accepted(tx: Tx, node_id: int, order_hash: str) -> int | None:
    """The node took the order; when it was issued, or None if that was known. Raises `BadRequest`."""
    order = own_order(tx, node_id, order_hash)
    if order.state != OrderState.OPEN or order.accepted:
        return None
    jobs.mark_accepted(tx, order_hash)
    job = _job(tx, order)
    if job.phase == JobPhase.LEASED and job.order_hash == order_hash:
        jobs.move(tx, job, JobPhase.RUNNING)
    return order.issued_at_ms


def refused(tx: Tx, node_id: int, order_hash: str, code: str, now_ms: int) -> Outcome | None:
    """The node will not do it: its reservation is free again. None when the order had ended. Idempotent."""
    order = own_order(tx, node_id, order_hash)
    if order.state != OrderState.OPEN:
        return None
    jobs.end_order(tx, order_hash, OrderState.OPEN, OrderState.REFUSED, code[:200])
    return _fail(tx, order, cause=code, refused=True, now_ms=now_ms)


def lapse_due(tx: Tx, order_hash: str, now_ms: int) -> Outcome | None:
    """An order whose lease ran out by now lapses; None where it has not, or it ended otherwise."""
    order = jobs.order(tx, order_hash)
    if order is None or order.state != OrderState.OPEN or order.lease_until_ms >= now_ms:
        return None
    return lapse(tx, order, now_ms)


def lapse(tx: Tx, order: OrderRow, now_ms: int) -> Outcome:
    """The lease ran out: the job goes on elsewhere, or waits. Raises `LostRace` when it had ended."""
    jobs.end_order(tx, order.order_hash, OrderState.OPEN, OrderState.LAPSED, ErrorCode.LEASE_LOST)
    return _fail(tx, order, cause=ErrorCode.LEASE_LOST, refused=False, now_ms=now_ms)


def expire(tx: Tx, job: JobRow, now_ms: int) -> list[Outcome]:
    """The deadline passed: its open order lapses and the job ends uncharged. Raises `LostRace`."""
    found = []
    for order in jobs.orders_of(tx, job.job_id):
        if order.state == OrderState.OPEN:
            jobs.end_order(
                tx, order.order_hash, OrderState.OPEN, OrderState.LAPSED, ErrorCode.DEADLINE_PASSED
            )
            sessions.release(tx, order.session_id, reserved_atoms=order.max_amount_atoms)
            found.append(_outcome(order, job, ended=True))
    reason = EndReason.DEADLINE_PASSED.value
    jobs.move(tx, job, JobPhase.EXPIRED, end_reason=reason, ended_at_ms=now_ms)
    return found


def give_up(tx: Tx, job: JobRow, reason: EndReason, detail: str, now_ms: int) -> None:
    """Ends a job that found no other node. Raises `LostRace`."""
    jobs.move(tx, job, JobPhase.FAILED, end_reason=reason.value, detail=detail[:500], ended_at_ms=now_ms)


def receipt(
    tx: Tx, node_id: int, frame: ReceiptFrame, chunks: Sequence[bytes], domain: Domain, now_ms: int
) -> Outcome:
    """Takes a receipt with its response: pays, fails over, supersedes, or keeps it as evidence.

    Raises:
        BadRequest: it cannot be attributed to the order's node; nothing changed.
        LostRace: the order ended meanwhile; send it again.
    """
    order = own_order(tx, node_id, to_hex(frame.order_hash))
    job = _job(tx, order)
    signed = _attributed(frame, order, domain)
    known = receipts.find(tx, order.order_hash)
    settled = _settled(order, job, frame, known)
    if settled is not None:
        return settled
    if len(chunks) < frame.chunks:
        # A gateway that restarted holds only what came since; a fresh link brings the response again.
        raise BadRequest(ErrorCode.NOT_READY, f"{len(chunks)} of {frame.chunks} chunks are here")
    if known is not None or order.state in (OrderState.REFUSED, OrderState.VOID):
        return _void(tx, order, job, frame, "the order had ended otherwise", domain, now_ms)
    try:
        finish = rules.check_receipt(signed, _work(tx, order, job, frame, chunks), now_ms)
    except ProviderFault as fault:
        return _void(tx, order, job, frame, fault.detail, domain, now_ms)
    late = _late(tx, order, job, signed)
    row = _row(order, job, signed, frame, domain, now_ms)
    if late is rules.Late.SUPERSEDE:
        row.superseded = True
        receipts.add(tx, row, ())
        return _outcome(order, job, reply=Superseded(order_hash=frame.order_hash))
    receipts.add(tx, row, chunks)
    _settle_order(tx, order, signed, was_late=late is not None)
    reply = Delivered(order_hash=frame.order_hash)
    if signed.status == ReceiptStatus.FAILED:
        return _after(tx, order, job, cause=finish, refused=False, now_ms=now_ms, reply=reply)
    _deliver(tx, order, job, signed, now_ms)
    return _outcome(order, job, reply=reply, ended=True)


def _deliver(tx: Tx, order: OrderRow, job: JobRow, signed: Receipt, now_ms: int) -> None:
    if job.phase == JobPhase.ORDERED:
        # A late receipt counts after all: its order is the job's again.
        jobs.move(tx, job, JobPhase.LEASED, order_hash=order.order_hash)
    reason = _REASONS[ReceiptStatus(signed.status)].value
    jobs.move(tx, job, JobPhase.DELIVERED, end_reason=reason, order_hash=order.order_hash, ended_at_ms=now_ms)


def _settle_order(tx: Tx, order: OrderRow, signed: Receipt, *, was_late: bool) -> None:
    before = OrderState.LAPSED if was_late else OrderState.OPEN
    jobs.end_order(tx, order.order_hash, before, OrderState.RECEIPTED)
    reserved = 0 if was_late else order.max_amount_atoms
    sessions.release(tx, order.session_id, reserved_atoms=reserved, owed_atoms=signed.amount_atoms)


def _attributed(frame: ReceiptFrame, order: OrderRow, domain: Domain) -> Receipt:
    try:
        signed = Receipt.decode(frame.receipt.message)
    except ValueError as error:
        raise BadRequest(ErrorCode.MALFORMED_BODY, f"receipt: {error}") from error
    if rules.receipt_signer(signed, domain, frame.receipt.signature) != order.signer:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"the receipt must be signed by {order.signer}")
    if signed.order_hash != frame.order_hash:
        raise BadRequest(ErrorCode.ORDER_MISDIRECTED, "the receipt is for another order than its frame says")
    return signed


def _settled(order: OrderRow, job: JobRow, frame: ReceiptFrame, known: ReceiptRow | None) -> Outcome | None:
    """The outcome of a receipt that needs no look any more."""
    if known is not None and known.message == frame.receipt.message:
        return _outcome(order, job, reply=_known_reply(frame, known))
    if job.deleted_at_ms is not None:
        # It ended otherwise and its input is gone, so that nothing of this can be checked any more.
        return _outcome(order, job, reply=Superseded(order_hash=frame.order_hash))
    return None


def _known_reply(frame: ReceiptFrame, known: ReceiptRow) -> Frame:
    kind = Superseded if known.superseded else Delivered
    return kind(order_hash=frame.order_hash)


def _work(tx: Tx, order: OrderRow, job: JobRow, frame: ReceiptFrame, chunks: Sequence[bytes]) -> rules.Work:
    return rules.Work(
        order=Order.decode(order.message),
        order_hash=frame.order_hash,
        offer=offer_of(tx, order.offer_hash),
        payload=None if is_sealed(job.payload) else parse_payload(job.payload),
        salt=order.salt,
        signer=order.signer,
        chunks=chunks,
        annex=frame.annex,
    )


def _late(tx: Tx, order: OrderRow, job: JobRow, signed: Receipt) -> rules.Late | None:
    if order.state != OrderState.LAPSED:
        return None
    voucher = vouchers.find(tx, order.session_id)
    session = sessions.find(tx, order.session_id)
    return rules.late(
        finished_at_ms=signed.finished_at_ms,
        lease_until_ms=order.lease_until_ms,
        job_waits=job.phase == JobPhase.ORDERED,
        covered=voucher is not None and voucher.through_seq >= order.seq,
        affordable=session is not None and sessions.left_atoms(session) >= signed.amount_atoms,
    )


def _void(
    tx: Tx, order: OrderRow, job: JobRow, frame: ReceiptFrame, problem: str, domain: Domain, now_ms: int
) -> Outcome:
    digest = Receipt.decode(frame.receipt.message).digest(domain)
    evidence = FaultRow(
        receipt_digest=to_hex(digest),
        order_hash=order.order_hash,
        node_id=order.node_id,
        message=frame.receipt.message,
        signature=frame.receipt.signature,
        annex=frame.annex,
        problem=problem,
        received_at_ms=now_ms,
    )
    receipts.add_fault(tx, evidence)
    reply = Problem(code=ErrorCode.RECEIPT_INVALID.value, detail=f"order {order.order_hash}: {problem}")
    if order.state not in (OrderState.OPEN, OrderState.LAPSED):
        return _outcome(order, job, reply=reply)
    jobs.end_order(tx, order.order_hash, OrderState(order.state), OrderState.VOID, problem)
    if order.state == OrderState.LAPSED:
        return _outcome(order, job, reply=reply)
    sessions.release(tx, order.session_id, reserved_atoms=order.max_amount_atoms)
    cause = ErrorCode.RECEIPT_INVALID
    return _after(tx, order, job, cause=cause, refused=False, now_ms=now_ms, reply=reply)


def _fail(tx: Tx, order: OrderRow, *, cause: str, refused: bool, now_ms: int) -> Outcome:
    sessions.release(tx, order.session_id, reserved_atoms=order.max_amount_atoms)
    return _after(tx, order, _job(tx, order), cause=cause, refused=refused, now_ms=now_ms, reply=None)


def _after(
    tx: Tx, order: OrderRow, job: JobRow, *, cause: str, refused: bool, now_ms: int, reply: Frame | None
) -> Outcome:
    if JobPhase(job.phase) not in OPEN:
        return _outcome(order, job, reply=reply)
    failure = rules.Failure(
        held=job.held,
        attempts=job.attempts,
        deadline_ms=job.deadline_ms,
        cause=cause,
        refused=refused,
        cancelled=job.cancel_asked_ms is not None,
    )
    follow = rules.after_failure(failure, now_ms)
    if follow.move is rules.Next.REISSUE:
        if job.phase != JobPhase.ORDERED:
            jobs.move(tx, job, JobPhase.ORDERED, detail=cause[:200])
        return _outcome(order, job, reply=reply, reissue=True)
    give_up(tx, job, follow.reason, cause, now_ms)
    return _outcome(order, job, reply=reply, ended=True)


def _row(
    order: OrderRow, job: JobRow, signed: Receipt, frame: ReceiptFrame, domain: Domain, now_ms: int
) -> ReceiptRow:
    return ReceiptRow(
        order_hash=order.order_hash,
        receipt_id=ids.receipt_id(signed.digest(domain)),
        job_id=job.job_id,
        session_id=order.session_id,
        seq=order.seq,
        message=frame.receipt.message,
        signature=frame.receipt.signature,
        annex=frame.annex,
        amount_atoms=signed.amount_atoms,
        status=signed.status,
        received_at_ms=now_ms,
    )


def _job(tx: Tx, order: OrderRow) -> JobRow:
    job = jobs.find(tx, order.job_id)
    if job is None:
        raise BadRequest(ErrorCode.UNKNOWN_JOB, order.job_id)
    return job


def _outcome(
    order: OrderRow, job: JobRow, *, reply: Frame | None = None, ended: bool = False, reissue: bool = False
) -> Outcome:
    return Outcome(job=job, session_id=order.session_id, reply=reply, ended=ended, reissue=reissue)

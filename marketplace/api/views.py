"""Rows as JSON. Amounts are decimal strings of atoms; bytes are 0x-hex, bodies base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from marketplace.chain.deployment import Deployment
from marketplace.protocol.annex import AnyAnnex, read_annex
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Receipt
from marketplace.protocol.payloads import Answer, task_type
from marketplace.protocol.phases import ENDINGS, HAS_RESULT, EndReason, JobPhase, session_status
from marketplace.store import content, events, jobs, offers, receipts, sessions, vouchers
from marketplace.store.tables import JobRow, NodeRow, OrderRow, ReceiptRow, SessionRow, Tx


def b64(data: bytes) -> str:
    """Base64 text."""
    return base64.b64encode(data).decode()


def session_view(row: SessionRow, now_at: int) -> dict[str, Any]:
    """A session: what the chain says, then what is promised here."""
    status = session_status(closed=row.closed, expires_at=row.expires_at, now=now_at)
    return {
        "session_id": row.session_id,
        "buyer": row.buyer,
        "key": row.key,
        "node_id": row.node_id,
        "key_epoch": row.key_epoch,
        "deposited_atoms": str(row.deposited_atoms),
        "paid_atoms": str(row.paid_atoms),
        "owed_atoms": str(row.owed_atoms),
        "reserved_atoms": str(row.reserved_atoms),
        "left_atoms": str(sessions.left_atoms(row)),
        "through_seq": row.through_seq,
        "next_seq": row.next_seq,
        "expires_at": row.expires_at,
        "opened_block": row.opened_block,
        "status": status.value,
    }


def node_view(tx: Tx, row: NodeRow) -> dict[str, Any]:
    """A node as the market sees it."""
    return {
        "node_id": row.node_id,
        "owner": row.owner,
        "epoch": row.epoch,
        "signer": row.signer,
        "encryption_key": row.encryption_key,
        "uri": row.uri,
        "stake_atoms": str(row.stake_atoms),
        "earnings_atoms": str(row.earnings_atoms),
        "connected": row.connected,
        "draining": row.draining,
        "free_slots": row.free_slots,
        "queue_depth": row.queue_depth,
        "last_seen_ms": row.last_seen_ms,
        "models": [
            {"model_id": m.model_id, "name": m.name, "task": m.task, "loaded": m.loaded}
            for m in offers.models_of(tx, row.node_id)
        ],
    }


def job_view(tx: Tx, job: JobRow) -> dict[str, Any]:
    """A job with its result and what happened when."""
    past = jobs.orders_of(tx, job.job_id)
    last = next((order for order in past if order.order_hash == job.order_hash), None)
    receipt = receipts.find(tx, job.order_hash) if job.order_hash else None
    has_result = JobPhase(job.phase) in HAS_RESULT
    ending = ENDINGS[EndReason(job.end_reason)] if job.end_reason else None
    charged = bool(ending and ending.charged and receipt and receipt.amount_atoms)
    return {
        "job_id": job.job_id,
        "phase": job.phase,
        "end_reason": job.end_reason,
        "sentence": ending.sentence if ending else "The job is on its way.",
        "detail": job.detail,
        "charged": charged,
        "task": job.task,
        "model": job.model_name,
        "model_id": job.model_id,
        "key": job.key,
        "node_id": last.node_id if last else None,
        "attempts": job.attempts,
        "trace_id": job.trace_id,
        "created_at_ms": job.created_at_ms,
        "ended_at_ms": job.ended_at_ms,
        "deadline_ms": job.deadline_ms,
        "cost_atoms": str(receipt.amount_atoms if receipt and charged else 0),
        "receipt_id": receipt.receipt_id if receipt and has_result else None,
        "settled_tx": job.settled_tx,
        "result": _result(tx, job, receipt) if has_result and job.deleted_at_ms is None else None,
        "keep_until_ms": job.keep_until_ms,
        "deleted_at_ms": job.deleted_at_ms,
        "deletion": deletion_view(tx, job) if job.deleted_at_ms is not None else None,
        "timeline": _timeline(tx, job, past),
    }


def job_line(job: JobRow) -> dict[str, Any]:
    """A job in a list."""
    names = ("job_id", "phase", "end_reason", "task", "trace_id", "attempts", "created_at_ms", "ended_at_ms")
    line = {name: getattr(job, name) for name in names}
    return line | {"model": job.model_name, "settled_tx": job.settled_tx}


def deletion_view(tx: Tx, job: JobRow) -> dict[str, str] | None:
    """The signed record of a deletion; `watt receipt deletion` reads it."""
    row = content.deletion(tx, job.job_id)
    if row is None:
        return None
    return {"record": row.record.decode(), "signature": to_hex(row.signature), "signer": row.signer}


def check_kept(job: JobRow) -> None:
    """Raises `BadRequest` when a job's input and output were deleted."""
    if job.deleted_at_ms is not None:
        detail = f"input and output were deleted; what stays is at /v1/jobs/{job.job_id}"
        raise BadRequest(ErrorCode.CONTENT_DELETED, detail, job_id=job.job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Everything an answer to a caller is made of."""

    job: JobRow
    receipt: Receipt
    answer: Answer
    chunks: Sequence[bytes]
    annex: AnyAnnex
    ceiling_atoms: int
    bundle: dict[str, Any]


def failed_delivery(tx: Tx, job: JobRow, deployment: Deployment) -> Delivery | None:
    """The free receipt of a job whose last node failed, when it signed one that counts."""
    row = receipts.find(tx, job.order_hash or "")
    counts = row is not None and not row.superseded and job.deleted_at_ms is None
    return delivery(tx, job, deployment) if counts else None


def delivery(tx: Tx, job: JobRow, deployment: Deployment) -> Delivery:
    """Answer and receipt of a delivered job. Raises `BadRequest` when they were deleted."""
    check_kept(job)
    row = receipts.find(tx, job.order_hash or "")
    order = jobs.order(tx, job.order_hash or "")
    if row is None or order is None:
        raise Broken(ErrorCode.INTERNAL, f"job {job.job_id} is delivered but has no receipt")
    chunks = receipts.chunks(tx, row.order_hash)
    return Delivery(
        job=job,
        receipt=Receipt.decode(row.message),
        answer=Answer(chunks),
        chunks=chunks,
        annex=read_annex(row.annex),
        ceiling_atoms=order.max_amount_atoms,
        bundle=bundle(tx, row, deployment, chunks),
    )


def bundle(tx: Tx, row: ReceiptRow, deployment: Deployment, chunks: Sequence[bytes]) -> dict[str, Any]:
    """A receipt with all that is needed to verify it offline. Raises `BadRequest` when that was deleted."""
    order, job = jobs.order(tx, row.order_hash), jobs.find(tx, row.job_id)
    offer = offers.find(tx, order.offer_hash) if order else None
    session = sessions.find(tx, row.session_id)
    if order is None or job is None or offer is None:
        raise Broken(ErrorCode.INTERNAL, f"receipt {row.receipt_id} has lost its order")
    check_kept(job)
    paid_by = job.settled_tx if job.order_hash == row.order_hash else None
    paid_block = events.block_of(tx, row.session_id, paid_by) if paid_by else None
    return {
        "version": 1,
        "id": row.receipt_id,
        "job_id": row.job_id,
        "trace_id": job.trace_id,
        "domain": {"chain_id": deployment.chain_id, "escrow": deployment.escrow},
        "offer": {"message": to_hex(offer.message), "signature": to_hex(offer.signature)},
        "order": {"message": to_hex(order.message), "signature": to_hex(order.signature)},
        "key": job.key,
        "receipt": {"message": to_hex(row.message), "signature": to_hex(row.signature)},
        "fields": Receipt.decode(row.message).to_json(),
        "annex": b64(row.annex),
        "salt": to_hex(order.salt),
        "request_payload": b64(job.payload),
        "chunks": [b64(chunk) for chunk in chunks],
        "node": {
            "node_id": order.node_id,
            "signer": order.signer,
            "epoch": session.key_epoch if session else None,
        },
        "superseded": row.superseded,
        "settlement": {"tx_hash": paid_by, "block": paid_block} if paid_block is not None else None,
    }


def _result(tx: Tx, job: JobRow, receipt: ReceiptRow | None) -> dict[str, Any] | None:
    if receipt is None:
        return None
    return task_type(job.task).shown(Answer(receipts.chunks(tx, receipt.order_hash)))


def _timeline(tx: Tx, job: JobRow, past: list[OrderRow]) -> list[dict[str, Any]]:
    line: list[dict[str, Any]] = [{"event": "ordered", "at_ms": job.created_at_ms}]
    for order in past:
        line.append(
            {
                "event": "leased",
                "at_ms": order.issued_at_ms,
                "node_id": order.node_id,
                "attempt": order.attempt,
                "state": order.state,
                "problem": order.problem,
            }
        )
        receipt = receipts.find(tx, order.order_hash)
        if receipt is not None:
            event = "superseded" if receipt.superseded else "delivered" if receipt.status else "failed"
            line.append({"event": event, "at_ms": receipt.received_at_ms, "receipt_id": receipt.receipt_id})
    last = next((order for order in past if order.order_hash == job.order_hash), None)
    voucher = vouchers.find(tx, last.session_id) if last else None
    if last and voucher and voucher.through_seq >= last.seq and job.phase in _ACCEPTED:
        line.append({"event": "acknowledged", "at_ms": voucher.signed_at_ms})
    if job.settled_tx:
        line.append({"event": "settled", "tx_hash": job.settled_tx})
    if JobPhase(job.phase) not in HAS_RESULT and job.ended_at_ms is not None:
        line.append({"event": job.phase, "at_ms": job.ended_at_ms, "end_reason": job.end_reason})
    return line


_ACCEPTED = frozenset({JobPhase.ACKNOWLEDGED, JobPhase.SETTLED})

"""Rows as JSON. Amounts are decimal strings of atoms."""

from __future__ import annotations

from typing import Any

from marketplace.api.charges import charge_of
from marketplace.delivery import Delivery as Delivery
from marketplace.delivery import b64 as b64
from marketplace.delivery import bundle as bundle
from marketplace.delivery import check_kept as check_kept
from marketplace.delivery import delivery as delivery
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Answer, task_type
from marketplace.protocol.phases import ENDINGS, HAS_RESULT, EndReason, JobPhase, session_status
from marketplace.protocol.sealed import is_sealed
from marketplace.store import content, jobs, offers, receipts, sessions, vouchers
from marketplace.store.tables import JobRow, NodeRow, OrderRow, ReceiptRow, SessionRow, Tx


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
    charged = charge_of(job, receipt)
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
        "cost_atoms": str(receipt.amount_atoms if receipt and charged is True else 0),
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


def _result(tx: Tx, job: JobRow, receipt: ReceiptRow | None) -> dict[str, Any] | None:
    # What is sealed only its buyer can show.
    if receipt is None or is_sealed(job.payload):
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

"""From an ended job to what its caller gets: the answer with its signed proof, or why there is none."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from marketplace.chain.deployment import Deployment
from marketplace.funding.budgets import Left
from marketplace.openai import billing
from marketplace.protocol.annex import AnyAnnex, read_annex
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode, WattError
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Receipt
from marketplace.protocol.payloads import Answer
from marketplace.protocol.phases import ENDINGS, HAS_RESULT, EndReason, JobPhase
from marketplace.protocol.sealed import is_sealed
from marketplace.store import events, jobs, offers, receipts, sessions
from marketplace.store.tables import JobRow, OrderRow, ReceiptRow, Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an ended job leaves behind: `chunks` as its node sent them, sealed where the request was."""

    job: JobRow
    chunks: Sequence[bytes]
    bundle: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Evidence):
    """Everything an answer to a caller is made of; `left` is what its key may still spend."""

    receipt: Receipt
    answer: Answer
    annex: AnyAnnex
    ceiling_atoms: int
    left: Left | None = None


def check_kept(job: JobRow) -> None:
    """Raises `BadRequest` when a job's input and output were deleted."""
    if job.deleted_at_ms is not None:
        detail = f"input and output were deleted; what stays is at /v1/jobs/{job.job_id}"
        raise BadRequest(ErrorCode.CONTENT_DELETED, detail, job_id=job.job_id)


def failed_evidence(tx: Tx, job: JobRow, deployment: Deployment) -> Evidence | None:
    """The free receipt of a job whose last node failed, when it signed one that counts."""
    row = receipts.find(tx, job.order_hash or "")
    counts = row is not None and not row.superseded and job.deleted_at_ms is None
    return evidence(tx, job, deployment) if counts else None


def evidence(tx: Tx, job: JobRow, deployment: Deployment) -> Evidence:
    """Chunks and receipt of a delivered job. Raises `BadRequest` when they were deleted."""
    check_kept(job)
    row, _ = _receipted(tx, job)
    chunks = receipts.chunks(tx, row.order_hash)
    return Evidence(job=job, chunks=chunks, bundle=bundle(tx, row, deployment, chunks))


def delivery(tx: Tx, job: JobRow, deployment: Deployment) -> Delivery:
    """Answer and receipt of a job delivered in plain. Raises `BadRequest` when they were deleted."""
    found = evidence(tx, job, deployment)
    row, order = _receipted(tx, job)
    return Delivery(
        job=job,
        receipt=Receipt.decode(row.message),
        answer=Answer(found.chunks),
        chunks=found.chunks,
        annex=read_annex(row.annex),
        ceiling_atoms=order.max_amount_atoms,
        bundle=found.bundle,
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
        **({"sealed": True} if is_sealed(job.payload) else {}),
    }


def problem_of(job: JobRow | None, job_id: str) -> WattError | None:
    """Why a job brought no answer; None when it did."""
    if job is None or job.end_reason is None:
        # Readers were sent away: this gateway stops. The same call again attaches to the same job.
        detail = f"this gateway is restarting and the job goes on, not charged yet: see /v1/jobs/{job_id}"
        hint = "Send the same call again, which is the same job, or ask for it."
        return BadRequest(ErrorCode.NOT_READY, detail, job_id=job_id, hint=hint, outcome="pending")
    if JobPhase(job.phase) in HAS_RESULT:
        return None
    ending = ENDINGS[EndReason(job.end_reason)]
    if ending.problem is None:
        return None
    detail = f"{ending.sentence} ({job.detail})" if job.detail else ending.sentence
    return BadRequest(ending.problem, detail, job_id=job.job_id)


def spent(found: Delivery) -> billing.Spent:
    """What a delivered job used and cost."""
    method = found.annex.energy_method
    return billing.spent(found.receipt, ceiling_atoms=found.ceiling_atoms, energy_method=method)


def currency(deployment: Deployment) -> billing.Currency:
    """The token of a deployment."""
    return billing.Currency(decimals=deployment.token_decimals, symbol=deployment.token_symbol)


def extras(found: Sequence[Delivery], deployment: Deployment) -> dict[str, Any]:
    """Usage over all of an answer's choices, and their receipts; the first one's as one choice has them."""
    used = billing.summed([spent(one) for one in found])
    body: dict[str, Any] = {
        "usage": billing.of_completion(found[0].job.task, used, currency(deployment)),
        "job_id": found[0].job.job_id,
        "receipt": found[0].bundle,
    }
    if len(found) > 1:
        body["job_ids"] = [one.job.job_id for one in found]
        body["receipts"] = [one.bundle for one in found]
    return body


def _receipted(tx: Tx, job: JobRow) -> tuple[ReceiptRow, OrderRow]:
    row = receipts.find(tx, job.order_hash or "")
    order = jobs.order(tx, job.order_hash or "")
    if row is None or order is None:
        raise Broken(ErrorCode.INTERNAL, f"job {job.job_id} is delivered but has no receipt")
    return row, order


def b64(data: bytes) -> str:
    """Base64 text."""
    return base64.b64encode(data).decode()

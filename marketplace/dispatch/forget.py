"""Input and output that are kept no longer: deleted in one transaction with a signed record of it."""

from __future__ import annotations

from marketplace.protocol import deletion as records
from marketplace.protocol.deletion import Deletion
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.signing import Signer
from marketplace.store import content, jobs
from marketplace.store.tables import DeletionRow, JobRow, Tx


def ask(tx: Tx, key: str, job_id: str, signer: Signer, domain: Domain, now_ms: int) -> None:
    """Deletes what a key no longer wants kept. Idempotent.

    Raises:
        BadRequest: not a job of this key, or one that has not ended.
    """
    job = jobs.find(tx, job_id)
    if job is None or job.key != key:
        raise BadRequest(ErrorCode.UNKNOWN_JOB)
    if job.ended_at_ms is None:
        detail = "the job has not ended: cancel it first, or wait for it"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, job_id=job_id)
    _drop(tx, job, records.ASKED, signer, domain, now_ms)


def expire(tx: Tx, signer: Signer, domain: Domain, now_ms: int, limit: int) -> int:
    """Deletes what was to be kept until now, of so many jobs; gives how many. Idempotent."""
    due = content.due(tx, now_ms, limit)
    for job_id in due:
        job = jobs.find(tx, job_id)
        if job is not None:
            _drop(tx, job, records.EXPIRED, signer, domain, now_ms)
    return len(due)


def _drop(tx: Tx, job: JobRow, reason: str, signer: Signer, domain: Domain, now_ms: int) -> None:
    made = Deletion(
        job_id=job.job_id,
        key=job.key,
        order_hashes=tuple(order.order_hash for order in jobs.orders_of(tx, job.job_id)),
        receipt_ids=tuple(content.receipt_ids(tx, job.job_id)),
        reason=reason,
        deleted_at_ms=now_ms,
        chain_id=domain.chain_id,
        escrow=domain.escrow,
    )
    if not content.drop(tx, job, now_ms):
        return
    record = made.encode()
    row = DeletionRow(
        job_id=job.job_id, record=record, signature=records.sign(record, signer), signer=signer.address
    )
    content.add_deletion(tx, row)

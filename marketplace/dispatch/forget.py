"""Input and output that are kept no longer: deleted in one transaction with a signed record of it."""

from __future__ import annotations

from typing import Final

from marketplace.openai import batches as shapes
from marketplace.protocol import deletion as records
from marketplace.protocol.deletion import Deletion
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.signing import Signer
from marketplace.store import batches, content, files, jobs, receipts
from marketplace.store.batches import LineState
from marketplace.store.tables import DeletionRow, JobRow, Tx

_ENDED: Final = frozenset({LineState.DONE.value, LineState.FAILED.value})


def ask(tx: Tx, key: str, job_id: str, signer: Signer, domain: Domain, now_ms: int) -> None:
    """Deletes what a key no longer wants kept. Idempotent.

    Raises:
        BadRequest: not a job of this key, or one that has not ended, or whose request is going to be read.
    """
    job = jobs.find(tx, job_id)
    if job is None or job.key != key:
        raise BadRequest(ErrorCode.UNKNOWN_JOB)
    if job.ended_at_ms is None:
        detail = "the job has not ended: cancel it first, or wait for it"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, job_id=job_id)
    _check_unread(tx, job)
    _drop(tx, job, records.ASKED, signer, domain, now_ms)


def expire(tx: Tx, signer: Signer, domain: Domain, now_ms: int, limit: int) -> int:
    """Deletes what was to be kept until now, of so many jobs; gives how many. Idempotent."""
    due = content.due(tx, now_ms, limit)
    for job_id in due:
        job = jobs.find(tx, job_id)
        if job is not None:
            _drop(tx, job, records.EXPIRED, signer, domain, now_ms)
    return len(due)


def _check_unread(tx: Tx, job: JobRow) -> None:
    """Raises `BadRequest` where the job's request is in a file that another batch is going to read."""
    found = batches.line_of_job(tx, job.job_id)
    reader = batches.reading(tx, found[1].input_file_id, found[1].batch_id) if found else None
    if reader is not None:
        detail = f"its request is in a file that {reader.batch_id} reads: cancel that, or wait for it"
        raise BadRequest(ErrorCode.FILE_IN_USE, detail, batch_id=reader.batch_id)


def _empty_lines(tx: Tx, job: JobRow) -> None:
    """A batch's job: its request and its answer go from the files too; lines keep their numbers and names."""
    found = batches.line_of_job(tx, job.job_id)
    if found is None:
        return
    line, batch = found
    row = receipts.find(tx, job.order_hash or "")
    charged = row is not None and not row.superseded and row.amount_atoms > 0
    problem = BadRequest(ErrorCode.CONTENT_DELETED, job_id=job.job_id, charged=charged)
    for file_id in (batch.output_file_id, batch.error_file_id):
        body = files.line(tx, file_id, line.number)
        if body is not None:
            files.replace_line(tx, file_id, line.number, shapes.emptied(body, problem))
    # What another batch is going to read, or this one again, stays until then.
    if line.state in _ENDED and batches.reading(tx, batch.input_file_id, batch.batch_id) is None:
        files.replace_line(tx, batch.input_file_id, line.number, b"\n")


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
    _empty_lines(tx, job)
    record = made.encode()
    row = DeletionRow(
        job_id=job.job_id, record=record, signature=records.sign(record, signer), signer=signer.address
    )
    content.add_deletion(tx, row)

"""Input and output of jobs: until when they are kept, and how they go."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete
from sqlmodel import Session, col, select, update

from marketplace.store.tables import ChunkRow, DeletionRow, FaultRow, JobRow, OrderRow, ReceiptRow

_BLIND: Final = {"synchronize_session": False}


def due(tx: Session, now_ms: int, limit: int) -> list[str]:
    """Jobs that ended and whose content was to be kept until before now, longest ago first."""
    over = (col(JobRow.keep_until_ms) <= now_ms, col(JobRow.ended_at_ms).is_not(None))
    return list(tx.exec(select(JobRow.job_id).where(*over).order_by(col(JobRow.keep_until_ms)).limit(limit)))


def drop(tx: Session, job: JobRow, now_ms: int) -> bool:
    """Deletes all from which a job's input or output could be read or guessed; False when it is gone already.

    The salts go too: with them, and a hash, a guess could be confirmed. So does the digest of the call, and
    the annexes, which name the tokens of the answer.
    """
    gone = {"payload": b"", "fingerprint": "", "echo": "", "keep_until_ms": None, "deleted_at_ms": now_ms}
    still = (col(JobRow.job_id) == job.job_id, col(JobRow.deleted_at_ms).is_(None))
    if tx.exec(update(JobRow).where(*still).values(**gone), execution_options=_BLIND).rowcount != 1:
        return False
    mine = select(OrderRow.order_hash).where(OrderRow.job_id == job.job_id)
    tx.exec(delete(ChunkRow).where(col(ChunkRow.order_hash).in_(mine)), execution_options=_BLIND)
    for kind in (ReceiptRow, FaultRow):
        emptied = update(kind).where(col(kind.order_hash).in_(mine)).values(annex=b"")
        tx.exec(emptied, execution_options=_BLIND)
    unsalted = update(OrderRow).where(col(OrderRow.job_id) == job.job_id).values(salt=b"")
    tx.exec(unsalted, execution_options=_BLIND)
    tx.refresh(job)
    return True


def add_deletion(tx: Session, row: DeletionRow) -> None:
    """Keeps the record of a deletion."""
    tx.add(row)


def deletion(tx: Session, job_id: str) -> DeletionRow | None:
    """The record of a job's deletion."""
    return tx.get(DeletionRow, job_id)


def receipt_ids(tx: Session, job_id: str) -> list[str]:
    """Public ids of a job's receipts, sorted."""
    return sorted(tx.exec(select(ReceiptRow.receipt_id).where(ReceiptRow.job_id == job_id)))

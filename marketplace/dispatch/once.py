"""One logical call is one job, whatever retries: by the caller's own name for it, else by its client's count.

A name is digested with who gave it, so that nobody meets another's job. What a job is known by is a column of
the job: one table for every kind of name, written in the transaction that orders it.
"""

from __future__ import annotations

from typing import Final

from marketplace.dispatch.terms import Ask, Once
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from marketplace.protocol.phases import ENDED, JobPhase
from marketplace.store import jobs
from marketplace.store.tables import JobRow, Tx

NAME_MS: Final = 86_400_000
MOST_NAME: Final = 255
# Stock clients give up waiting after ten minutes, then send the call again.
RETRY_MS: Final = 600_000
MOST_RETRIES: Final = 1_000
_REPLACED: Final = MOST_RETRIES + 1


def idempotency_name(key: str, given: str) -> str:
    """What a call is known by that came with an `Idempotency-Key`; `key` is the paying key's address."""
    return keccak(f"{key}\0{given}".encode()).hex()


def fingerprint(path: str, body: bytes) -> str:
    """Digest of a call: where it went and what it asked, as canonical JSON."""
    return keccak(path.encode() + b"\0" + body).hex()


def known_job(tx: Tx, ask: Ask, now_ms: int, job_timeout_ms: int) -> str | None:
    """The job this call has already made; None when it is a new one, or the former ended uncharged.

    Raises:
        BadRequest: its name stands for another call.
    """
    once, key = ask.once, ask.key.address
    if once.name is not None:
        return _named(tx, once, now_ms)
    if once.retries == 0:
        return None
    since = now_ms - RETRY_MS - job_timeout_ms
    job = jobs.find_retried(tx, key, once.fingerprint, once.retries, since)
    if job is None:
        return None
    # Two calls that are alike may both be retried: each retry takes a job that no other has taken. A job that
    # failed is taken for good: the next one stands in its place.
    failed = _ended_uncharged(job)
    jobs.note_retry(tx, job.job_id, _REPLACED if failed else once.retries)
    return None if failed else job.job_id


def forget(tx: Tx, now_ms: int) -> int:
    """Gives names back whose day is over; gives how many. Idempotent."""
    return jobs.forget_names(tx, now_ms - NAME_MS)


def find(tx: Tx, name: str, now_ms: int) -> JobRow | None:
    """The job that is known by a name today."""
    job = jobs.find_by_idempotency(tx, name)
    return None if job is None or job.created_at_ms < now_ms - NAME_MS else job


def _named(tx: Tx, once: Once, now_ms: int) -> str | None:
    job = jobs.find_by_idempotency(tx, once.name or "")
    if job is None:
        return None
    is_over = job.created_at_ms < now_ms - NAME_MS
    # The fingerprint of a deleted job went with its content; the name still stands for that one job.
    known = is_over or job.deleted_at_ms is not None
    if not known and job.fingerprint != once.fingerprint:
        raise BadRequest(ErrorCode.IDEMPOTENCY_MISMATCH, job_id=job.job_id)
    if is_over or _ended_uncharged(job):
        jobs.forget_idempotency(tx, job.job_id)
        return None
    return job.job_id


def _ended_uncharged(job: JobRow) -> bool:
    return JobPhase(job.phase) in ENDED

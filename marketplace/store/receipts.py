"""Receipts and the chunks under them; once written they never change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import ColumnElement, Select, Update, bindparam, func, insert
from sqlalchemy import select as select_columns
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select, update
from sqlmodel.sql.expression import SelectOfScalar

from marketplace.protocol.errors import ErrorCode, LostRace
from marketplace.protocol.forecasts import Spent
from marketplace.protocol.phases import HAS_RESULT, JobPhase
from marketplace.protocol.webhooks import Event
from marketplace.store import webhooks
from marketplace.store.events import batches
from marketplace.store.plain import run, table_of
from marketplace.store.tables import ChunkRow, FaultRow, JobRow, ReceiptRow, SessionRow

_BLIND = {"synchronize_session": False}
_NO_END = 1 << 62
_TOLD = {JobPhase.SETTLED: Event.JOB_SETTLED, JobPhase.REFUNDED: Event.JOB_REFUNDED}
_WITH_RESULT = [phase.value for phase in sorted(HAS_RESULT)]


def add(tx: Session, row: ReceiptRow, chunks: Sequence[bytes]) -> None:
    """Keeps a receipt with its response. Raises `LostRace` when the order got one meanwhile."""
    tx.add(row)
    try:
        tx.flush()
    except IntegrityError as error:
        raise LostRace(ErrorCode.RECEIPT_INVALID, "the order has a receipt by now") from error
    if chunks:
        bodies = [
            {"order_hash": row.order_hash, "position": i, "body": body} for i, body in enumerate(chunks)
        ]
        tx.connection().execute(insert(ChunkRow), bodies)


def add_fault(tx: Session, row: FaultRow) -> None:
    """Keeps evidence against a node. Idempotent."""
    tx.merge(row)


def find(tx: Session, order_hash: str) -> ReceiptRow | None:
    """The receipt of an order."""
    return tx.get(ReceiptRow, order_hash)


def find_by_id(tx: Session, receipt_id: str) -> ReceiptRow | None:
    """A receipt by its public id."""
    return tx.exec(select(ReceiptRow).where(ReceiptRow.receipt_id == receipt_id)).first()


def spent_since(tx: Session, key: str, since_ms: int) -> Spent:
    """What receipts that came since then cost a key."""
    query = (
        select(
            func.sum(ReceiptRow.amount_atoms),
            func.count(col(ReceiptRow.order_hash)),
            func.min(ReceiptRow.received_at_ms),
        )
        .join(JobRow, col(JobRow.job_id) == ReceiptRow.job_id)
        .where(JobRow.key == key, col(ReceiptRow.received_at_ms) >= since_ms)
        .where(col(ReceiptRow.superseded).is_(False))
    )
    atoms, times, first_ms = tx.exec(query).one()
    return Spent(atoms=int(atoms or 0), times=times, since=None if first_ms is None else first_ms // 1000)


def chunks(tx: Session, order_hash: str) -> list[bytes]:
    """Response chunks of a receipted order, in order."""
    return list(run(tx, _chunks(), {"of": order_hash}).scalars())


def of_session(
    tx: Session, session_id: str, *, after_seq: int = 0, limit: int | None = None
) -> list[ReceiptRow]:
    """A session's receipts above a seq in order of seq, superseded ones too; all where no limit is given."""
    query = select(ReceiptRow).where(ReceiptRow.session_id == session_id, col(ReceiptRow.seq) > after_seq)
    return list(tx.exec(query.order_by(col(ReceiptRow.seq)).limit(limit)))


def owed_between(tx: Session, session_id: str, after_seq: int, through_seq: int) -> list[ReceiptRow]:
    """Receipts a voucher has to cover with after < seq ≤ through, ascending."""
    told = {"of": session_id, "low": after_seq, "high": through_seq}
    return list(tx.exec(_owed(), params=told))


def traces(tx: Session, order_hashes: Sequence[str]) -> list[str]:
    """Trace ids of the jobs these orders answered, sorted."""
    found = (run(tx, _traces(), {"orders": part}).scalars() for part in batches(order_hashes))
    return sorted({trace_id for part in found for trace_id in part})


def acknowledge(tx: Session, session_id: str, through_seq: int) -> None:
    """Moves delivered jobs up to a seq to acknowledged. Idempotent."""
    run(tx, _acknowledge(), {"of": session_id, "low": 0, "high": through_seq})


@dataclass(frozen=True, slots=True)
class Billed:
    """A job that has a result, with the receipt it stands on."""

    order_hash: str
    seq: int
    message: bytes
    status: int
    phase: str
    settled_tx: str | None
    end_reason: str | None


def billed(tx: Session, session_id: str, after_seq: int) -> list[Billed]:
    """A session's jobs with results above a seq, ascending."""
    receipt = (ReceiptRow.order_hash, ReceiptRow.seq, ReceiptRow.message, ReceiptRow.status)
    query = (
        select_columns(*map(col, (*receipt, JobRow.phase, JobRow.settled_tx, JobRow.end_reason)))
        .join(JobRow, col(JobRow.order_hash) == ReceiptRow.order_hash)
        .where(col(JobRow.phase).in_(_WITH_RESULT))
        .where(col(ReceiptRow.order_hash).in_(_jobs(session_id, low=after_seq, high=_NO_END)))
        .order_by(col(ReceiptRow.seq))
    )
    return [Billed(*row) for row in tx.execute(query)]


def mark(
    tx: Session,
    order_hashes: Sequence[str],
    phase: JobPhase,
    *,
    settled_tx: str | None,
    end_reason: str | None,
) -> None:
    """Sets where jobs with results stand with their money."""
    for part in batches(order_hashes):
        query = (
            update(JobRow)
            .where(col(JobRow.order_hash).in_(part), col(JobRow.phase).in_(_WITH_RESULT))
            .values(
                phase=phase.value,
                settled_tx=settled_tx,
                end_reason=end_reason,
                version=col(JobRow.version) + 1,
            )
        )
        tx.exec(query, execution_options=_BLIND)
    if phase in _TOLD:
        webhooks.tell_orders(tx, _TOLD[phase], order_hashes)


@dataclass(frozen=True, slots=True)
class Unpaid:
    """A session with jobs done that can never be paid any more."""

    session_id: str
    paid_through_seq: int


def unpayable(tx: Session, expired_before: int, limit: int) -> list[Unpaid]:
    """Sessions, closed or expired before this (Unix seconds), that leave delivered jobs unpaid.

    While something of a session is claimed and not decided, its jobs may still be paid.
    """
    query = (
        select(ReceiptRow.session_id, SessionRow.through_seq)
        .join(SessionRow, col(SessionRow.session_id) == ReceiptRow.session_id)
        .join(JobRow, col(JobRow.order_hash) == ReceiptRow.order_hash)
        .where(
            col(JobRow.phase).in_([JobPhase.DELIVERED.value, JobPhase.ACKNOWLEDGED.value]),
            col(SessionRow.closed).is_(True) | (col(SessionRow.expires_at) < expired_before),
            col(SessionRow.claimed_atoms) == 0,
            col(ReceiptRow.seq) > SessionRow.through_seq,
        )
        .distinct()
        .limit(limit)
    )
    return [Unpaid(session_id, through) for session_id, through in tx.exec(query)]


def refund(tx: Session, session_id: str, after_seq: int, reason: str) -> None:
    """Ends jobs above the last paid seq of a dead session as refunded."""
    jobs = _jobs(session_id, low=after_seq, high=_NO_END)
    unpaid = (JobPhase.DELIVERED, JobPhase.ACKNOWLEDGED)
    waited = select(JobRow.order_hash).where(
        col(JobRow.order_hash).in_(jobs), col(JobRow.phase).in_([phase.value for phase in unpaid])
    )
    told = [order_hash for order_hash in tx.exec(waited) if order_hash is not None]
    for phase in unpaid:
        _shift(tx, jobs, phase, JobPhase.REFUNDED, end_reason=reason)
    webhooks.tell_orders(tx, Event.JOB_REFUNDED, told)


# Built once: these run for every job, and building them took longer than the database does.
@cache
def _chunks() -> Select[bytes]:
    mine = col(ChunkRow.order_hash) == bindparam("of")
    return select_columns(col(ChunkRow.body)).where(mine).order_by(col(ChunkRow.position))


@cache
def _traces() -> Select[str]:
    mine = col(JobRow.order_hash).in_(bindparam("orders", expanding=True))
    return select_columns(col(JobRow.trace_id)).where(mine)


@cache
def _owed() -> SelectOfScalar[ReceiptRow]:
    return select(ReceiptRow).where(*_between()).order_by(col(ReceiptRow.seq))


@cache
def _acknowledge() -> Update:
    table = table_of(JobRow)
    orders = select_columns(col(ReceiptRow.order_hash)).where(*_between())
    mine = (table.c.order_hash.in_(orders), table.c.phase == JobPhase.DELIVERED.value)
    return update(table).where(*mine).values(phase=JobPhase.ACKNOWLEDGED.value, version=table.c.version + 1)


def _between() -> tuple[ColumnElement[bool], ...]:
    return _counted(bindparam("of"), bindparam("low"), bindparam("high"))


def _counted(session_id: object, low: object, high: object) -> tuple[ColumnElement[bool], ...]:
    """Receipts of a session that count, with low < seq ≤ high."""
    seq = col(ReceiptRow.seq)
    mine = (col(ReceiptRow.session_id) == session_id, seq > low, seq <= high)
    return (*mine, col(ReceiptRow.superseded).is_(False))


def _jobs(session_id: str, *, low: int, high: int) -> SelectOfScalar[str]:
    return select(ReceiptRow.order_hash).where(*_counted(session_id, low, high))


def _shift(
    tx: Session, orders: SelectOfScalar[str], before: JobPhase, after: JobPhase, **values: object
) -> None:
    query = (
        update(JobRow)
        .where(col(JobRow.order_hash).in_(orders), col(JobRow.phase) == before.value)
        .values(phase=after.value, version=col(JobRow.version) + 1, **values)
    )
    tx.exec(query, execution_options=_BLIND)

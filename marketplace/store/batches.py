"""Batches and their lines. A batch moves only by a guarded update on (id, version), a line on its state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import func, insert
from sqlalchemy import select as select_columns
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select, update

from marketplace.openai.batches import OVER, TRANSITIONS, BatchStatus
from marketplace.protocol.errors import Broken, ErrorCode, LostRace
from marketplace.store.batch_tables import BatchLineRow, BatchRow
from marketplace.store.plain import run
from marketplace.store.tables import JobRow

_BLIND: Final = {"synchronize_session": False}
_UNFINISHED: Final = col(BatchRow.status).not_in([status.value for status in OVER])
_ANY_UNFINISHED: Final = select_columns(col(BatchRow.batch_id)).where(_UNFINISHED).limit(1)


class LineState(StrEnum):
    """How a line stands: waits for a job, has one, or has ended."""

    WAITING = "waiting"
    PLACED = "placed"
    DONE = "done"
    FAILED = "failed"


def add(tx: Session, batch: BatchRow, lines: Iterable[BatchLineRow]) -> None:
    """A fresh batch. Raises `LostRace` when its idempotency key was taken meanwhile."""
    tx.add(batch)
    try:
        tx.flush()
    except IntegrityError as error:
        raise LostRace(ErrorCode.LEASE_LOST, "the same batch was stored meanwhile") from error
    rows = [line.model_dump() for line in lines]
    if rows:
        tx.execute(insert(BatchLineRow), rows)


def find(tx: Session, batch_id: str, key: str) -> BatchRow | None:
    """A key's own batch."""
    row = tx.get(BatchRow, batch_id)
    return row if row is not None and row.key == key else None


def get(tx: Session, batch_id: str) -> BatchRow:
    """A batch that is there."""
    row = tx.get(BatchRow, batch_id)
    if row is None:
        raise Broken(ErrorCode.INTERNAL, f"batch {batch_id} is gone")
    return row


def find_by_idempotency(tx: Session, digest: str) -> BatchRow | None:
    """The batch a caller's idempotency key stands for."""
    return tx.exec(select(BatchRow).where(BatchRow.idempotency == digest)).first()


def find_repeated(tx: Session, key: str, fingerprint: str, since_ms: int) -> BatchRow | None:
    """The newest batch of a key for the same call, made since then."""
    query = select(BatchRow).where(
        BatchRow.key == key, BatchRow.fingerprint == fingerprint, col(BatchRow.created_at_ms) >= since_ms
    )
    return tx.exec(query.order_by(col(BatchRow.created_at_ms).desc())).first()


def of_key(tx: Session, key: str, limit: int, after: str | None = None) -> list[BatchRow]:
    """A key's batches, newest first, from the one after `after`."""
    query = select(BatchRow).where(BatchRow.key == key)
    last = find(tx, after, key) if after else None
    if last is not None:
        made = col(BatchRow.created_at_ms)
        same = (made == last.created_at_ms) & (col(BatchRow.batch_id) > last.batch_id)
        query = query.where((made < last.created_at_ms) | same)
    query = query.order_by(col(BatchRow.created_at_ms).desc(), col(BatchRow.batch_id)).limit(limit)
    return list(tx.exec(query))


def unfinished(tx: Session, key: str | None = None, limit: int = 1_000) -> list[BatchRow]:
    """Batches that are not over, oldest first; of one key or of all."""
    if run(tx, _ANY_UNFINISHED).first() is None:
        # The usual answer, several times a second.
        return []
    query = select(BatchRow).where(_UNFINISHED)
    if key is not None:
        query = query.where(BatchRow.key == key)
    return list(tx.exec(query.order_by(col(BatchRow.created_at_ms), col(BatchRow.batch_id)).limit(limit)))


def reading(tx: Session, file_id: str, apart: str = "") -> BatchRow | None:
    """A batch that is not over and reads this file, another one than `apart`."""
    over = [status.value for status in OVER]
    query = select(BatchRow).where(
        BatchRow.input_file_id == file_id,
        col(BatchRow.status).not_in(over),
        col(BatchRow.batch_id) != apart,
    )
    return tx.exec(query.limit(1)).first()


def promised(tx: Session, key: str) -> dict[str, int]:
    """What lines that wait may yet cost, by the session that shall pay; for one key."""
    query = (
        select(BatchLineRow.session_id, func.sum(BatchLineRow.ceiling_atoms))
        .join(BatchRow, col(BatchRow.batch_id) == BatchLineRow.batch_id)
        .where(BatchRow.key == key, BatchLineRow.state == LineState.WAITING.value)
        .group_by(col(BatchLineRow.session_id))
    )
    return {session_id: int(atoms) for session_id, atoms in tx.exec(query)}


def move(tx: Session, batch: BatchRow, after: BatchStatus, **values: Any) -> None:
    """Moves a batch on, with other columns of it; `batch` is of this transaction, and read again.

    Raises:
        LostRace: somebody else moved it since it was read.
        Broken: the table of transitions has no such move.
    """
    before = BatchStatus(batch.status)
    if after is not before and after not in TRANSITIONS[before]:
        raise Broken(ErrorCode.INTERNAL, f"batch cannot go from {before} to {after}")
    query = (
        update(BatchRow)
        .where(col(BatchRow.batch_id) == batch.batch_id, col(BatchRow.version) == batch.version)
        .values(status=after.value, version=batch.version + 1, **values)
    )
    if tx.exec(query, execution_options=_BLIND).rowcount != 1:
        raise LostRace(ErrorCode.LEASE_LOST, "the batch moved on meanwhile")
    tx.refresh(batch)


def note_problem(tx: Session, batch_id: str, problem: str) -> None:
    """Why lines wait now; empty for no reason. Idempotent."""
    query = update(BatchRow).where(col(BatchRow.batch_id) == batch_id).values(problem=problem[:500])
    tx.exec(query, execution_options=_BLIND)


def has_open(tx: Session, batch_id: str) -> bool:
    """Whether a line of a batch waits or runs."""
    states = [LineState.WAITING.value, LineState.PLACED.value]
    query = select(BatchLineRow.number).where(
        BatchLineRow.batch_id == batch_id, col(BatchLineRow.state).in_(states)
    )
    return tx.exec(query.limit(1)).first() is not None


def in_flight(tx: Session) -> dict[str, int]:
    """How many lines of each batch have a job that is not collected yet."""
    query = (
        select(BatchLineRow.batch_id, func.count())
        .where(BatchLineRow.state == LineState.PLACED.value)
        .group_by(col(BatchLineRow.batch_id))
    )
    return {batch_id: int(number) for batch_id, number in tx.exec(query)}


def waiting(tx: Session, batch_id: str, limit: int, *, without: Collection[str] = ()) -> list[BatchLineRow]:
    """Lines that wait for a job, of other models than `without`, in order."""
    query = select(BatchLineRow).where(
        BatchLineRow.batch_id == batch_id, BatchLineRow.state == LineState.WAITING.value
    )
    if without:
        query = query.where(col(BatchLineRow.model).not_in(without))
    return list(tx.exec(query.order_by(col(BatchLineRow.number)).limit(limit)))


def placed(tx: Session, batch_id: str) -> list[tuple[BatchLineRow, JobRow]]:
    """Lines that have a job, with it, in order."""
    query = (
        select(BatchLineRow, JobRow)
        .join(JobRow, col(JobRow.job_id) == BatchLineRow.job_id)
        .where(BatchLineRow.batch_id == batch_id, BatchLineRow.state == LineState.PLACED.value)
        .order_by(col(BatchLineRow.number))
    )
    return [(line, job) for line, job in tx.exec(query)]


def job_of(tx: Session, key: str, fingerprint: str) -> JobRow | None:
    """The newest job of a key that was asked for with this fingerprint."""
    query = select(JobRow).where(JobRow.key == key, JobRow.fingerprint == fingerprint)
    return tx.exec(query.order_by(col(JobRow.created_at_ms).desc()).limit(1)).first()


def line_of_job(tx: Session, job_id: str) -> tuple[BatchLineRow, BatchRow] | None:
    """The line a job was last placed for, with its batch; None for a job of no batch."""
    query = (
        select(BatchLineRow, BatchRow)
        .join(BatchRow, col(BatchRow.batch_id) == BatchLineRow.batch_id)
        .where(BatchLineRow.job_id == job_id)
    )
    row = tx.exec(query).first()
    return None if row is None else (row[0], row[1])


def keep_jobs(tx: Session, batch_id: str, until_ms: int) -> None:
    """The content of a batch's jobs is kept as long as its results are. Deleted content stays deleted."""
    mine = select(BatchLineRow.job_id).where(BatchLineRow.batch_id == batch_id)
    query = (
        update(JobRow)
        .where(col(JobRow.job_id).in_(mine), col(JobRow.deleted_at_ms).is_(None))
        .values(keep_until_ms=until_ms)
    )
    tx.exec(query, execution_options=_BLIND)


def place(tx: Session, line: BatchLineRow, job_id: str) -> None:
    """The line has a job. Raises `LostRace` when it does not wait any more."""
    _shift(tx, line, LineState.WAITING, LineState.PLACED, job_id=job_id)


def put_back(tx: Session, line: BatchLineRow, tries: int) -> None:
    """The line's job brought nothing: it waits for another. Raises `LostRace`."""
    _shift(tx, line, LineState.PLACED, LineState.WAITING, job_id=None, tries=tries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one line used and cost."""

    units_in: int = 0
    units_out: int = 0
    cost_atoms: int = 0
    energy_millijoules: int = 0


def end(tx: Session, line: BatchLineRow, after: LineState, spent: Spent | None = None) -> None:
    """The line has its answer or its problem, and its batch counts it. Raises `LostRace`, so: once."""
    _shift(tx, line, LineState(line.state), after)
    spent = spent or Spent()
    counter = BatchRow.completed if after is LineState.DONE else BatchRow.failed
    counted: Mapping[Any, Any] = {
        counter: col(counter) + 1,
        BatchRow.units_in: col(BatchRow.units_in) + spent.units_in,
        BatchRow.units_out: col(BatchRow.units_out) + spent.units_out,
        BatchRow.cost_atoms: col(BatchRow.cost_atoms) + spent.cost_atoms,
        BatchRow.energy_millijoules: col(BatchRow.energy_millijoules) + spent.energy_millijoules,
    }
    query = update(BatchRow).where(col(BatchRow.batch_id) == line.batch_id).values(counted)
    tx.exec(query, execution_options=_BLIND)


def _shift(tx: Session, line: BatchLineRow, before: LineState, after: LineState, **values: Any) -> None:
    query = (
        update(BatchLineRow)
        .where(
            col(BatchLineRow.batch_id) == line.batch_id,
            col(BatchLineRow.number) == line.number,
            col(BatchLineRow.state) == before.value,
        )
        .values(state=after.value, **values)
    )
    if tx.exec(query, execution_options=_BLIND).rowcount != 1:
        raise LostRace(ErrorCode.LEASE_LOST, "the line moved on meanwhile")

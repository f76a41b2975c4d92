"""Jobs and their orders. A job moves only by a guarded update on (id, version)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import bindparam
from sqlalchemy import select as select_columns
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Session, col, select, update

from marketplace.protocol.errors import Broken, ErrorCode, LostRace
from marketplace.protocol.phases import OPEN, JobPhase, may_move
from marketplace.protocol.webhooks import Event
from marketplace.store import webhooks
from marketplace.store.plain import run, table_of
from marketplace.store.tables import JobRow, OrderRow

_BLIND = {"synchronize_session": False}
_MANY = 1_000  # values in one statement; databases bound them
_TOLD = {
    JobPhase.DELIVERED: Event.JOB_DELIVERED,
    JobPhase.FAILED: Event.JOB_FAILED,
    JobPhase.EXPIRED: Event.JOB_FAILED,
}


class OrderState(StrEnum):
    """How an order stands; all but `open` have ended.

    Refused: the node never took it. Lapsed: its lease or time ran out. Void: its receipt broke the rules.
    """

    OPEN = "open"
    RECEIPTED = "receipted"
    REFUSED = "refused"
    LAPSED = "lapsed"
    VOID = "void"


# Built once, and for the table instead of its class: these run for every job, or all the time, and building
# them took longer than the database does.
_JOB: Final = table_of(JobRow)
_WAITING: Final = (
    select_columns(_JOB.c.job_id)
    .where(_JOB.c.phase == JobPhase.ORDERED.value, _JOB.c.held.is_(True))
    .order_by(_JOB.c.created_at_ms)
    .limit(bindparam("most"))
)
_OVERDUE: Final = (
    select_columns(_JOB.c.job_id)
    .where(_JOB.c.phase.in_([phase.value for phase in OPEN]), _JOB.c.deadline_ms < bindparam("before"))
    .limit(bindparam("most"))
)
_ORDER: Final = table_of(OrderRow)
_OF_ORDER: Final = update(_ORDER).where(_ORDER.c.order_hash == bindparam("of"))
_MARK_ACCEPTED: Final = _OF_ORDER.values(accepted=True)
_END_ORDER: Final = _OF_ORDER.where(_ORDER.c.state == bindparam("before")).values(
    state=bindparam("after"), problem=bindparam("why")
)
_LAPSED: Final = (
    select_columns(_ORDER.c.order_hash)
    .where(_ORDER.c.state == OrderState.OPEN.value, _ORDER.c.lease_until_ms < bindparam("now"))
    .order_by(_ORDER.c.lease_until_ms)
    .limit(bindparam("most"))
)
_PLACES: Final = (
    select_columns(_ORDER.c.seq, _ORDER.c.state)
    .where(_ORDER.c.session_id == bindparam("of"), _ORDER.c.seq > bindparam("after"))
    .order_by(_ORDER.c.seq)
    .limit(bindparam("most"))
)


def add(tx: Session, job: JobRow) -> None:
    """A fresh job. Raises `LostRace` when its idempotency key was taken meanwhile."""
    tx.add(job)
    _flush(tx)
    webhooks.tell(tx, Event.JOB_ORDERED, job.job_id)


def find(tx: Session, job_id: str) -> JobRow | None:
    """A job by its id."""
    return tx.get(JobRow, job_id)


def find_by_idempotency(tx: Session, digest: str) -> JobRow | None:
    """The job a caller's idempotency key stands for."""
    return tx.exec(select(JobRow).where(JobRow.idempotency == digest)).first()


def find_retried(tx: Session, key: str, fingerprint: str, retries: int, since_ms: int) -> JobRow | None:
    """The job without a name that a client's retry means: of this key, for the same call, made since then.

    The one whose last answered retry is closest before this one, the newest of several.
    """
    query = select(JobRow).where(
        JobRow.key == key,
        JobRow.fingerprint == fingerprint,
        col(JobRow.created_at_ms) >= since_ms,
        col(JobRow.retries) < retries,
        col(JobRow.idempotency).is_(None),
    )
    newest = (col(JobRow.retries).desc(), col(JobRow.created_at_ms).desc(), col(JobRow.job_id))
    return tx.exec(query.order_by(*newest)).first()


def note_retry(tx: Session, job_id: str, retries: int) -> None:
    """A client's retry has been answered with this job. Idempotent."""
    query = update(JobRow).where(col(JobRow.job_id) == job_id).values(retries=retries)
    tx.exec(query, execution_options=_BLIND)


def forget_idempotency(tx: Session, job_id: str) -> None:
    """A job that failed uncharged gives its idempotency key back. Idempotent."""
    query = update(JobRow).where(col(JobRow.job_id) == job_id).values(idempotency=None)
    tx.exec(query, execution_options=_BLIND)


def forget_names(tx: Session, before_ms: int) -> int:
    """Jobs made before this give their idempotency keys back; gives how many. Idempotent."""
    old = (col(JobRow.created_at_ms) < before_ms, col(JobRow.idempotency).is_not(None))
    query = update(JobRow).where(*old).values(idempotency=None)
    return int(tx.exec(query, execution_options=_BLIND).rowcount)


def move(tx: Session, job: JobRow, after: JobPhase, **values: Any) -> None:
    """Moves a job on, with other columns of it, in the table and in `job`.

    Raises:
        LostRace: somebody else moved it since it was read.
        Broken: the table of transitions has no such move.
    """
    before = JobPhase(job.phase)
    if not may_move(before, after):
        raise Broken(ErrorCode.INTERNAL, f"job cannot go from {before} to {after}", job_id=job.job_id)
    moved = {"phase": after.value, "version": job.version + 1, **values}
    same = (_JOB.c.job_id == job.job_id, _JOB.c.version == job.version)
    if run(tx, update(_JOB).where(*same).values(moved)).rowcount != 1:
        raise LostRace(ErrorCode.LEASE_LOST, "the job moved on meanwhile", job_id=job.job_id)
    for name, value in moved.items():
        set_committed_value(job, name, value)
    if after in _TOLD:
        webhooks.tell(tx, _TOLD[after], job.job_id)


def ask_cancel(tx: Session, job: JobRow, now_ms: int) -> None:
    """Notes that the buyer wants no more of a job; `job` is read again. Raises `LostRace`."""
    query = (
        update(JobRow)
        .where(col(JobRow.job_id) == job.job_id, col(JobRow.version) == job.version)
        .values(cancel_asked_ms=now_ms, version=job.version + 1)
    )
    if tx.exec(query, execution_options=_BLIND).rowcount != 1:
        raise LostRace(ErrorCode.LEASE_LOST, "the job moved on meanwhile", job_id=job.job_id)
    tx.refresh(job)


def of_key(tx: Session, key: str, limit: int, after: str | None) -> list[JobRow]:
    """A key's jobs, newest first, from the one after `after`."""
    query = select(JobRow).where(JobRow.key == key)
    last = find(tx, after) if after else None
    if last is not None:
        older = col(JobRow.created_at_ms) < last.created_at_ms
        same = (col(JobRow.created_at_ms) == last.created_at_ms) & (col(JobRow.job_id) > last.job_id)
        query = query.where(older | same)
    query = query.order_by(col(JobRow.created_at_ms).desc(), col(JobRow.job_id)).limit(limit)
    return list(tx.exec(query))


def waiting(tx: Session, limit: int) -> list[str]:
    """Ids of jobs that look for another node, oldest first."""
    return list(run(tx, _WAITING, {"most": limit}).scalars())


def overdue(tx: Session, before_ms: int, limit: int) -> list[str]:
    """Ids of jobs still open whose deadline was before this."""
    return list(run(tx, _OVERDUE, {"before": before_ms, "most": limit}).scalars())


def add_order(tx: Session, order: OrderRow) -> None:
    """A fresh order. Raises `LostRace` when its seq was taken meanwhile."""
    tx.add(order)
    _flush(tx)


def order(tx: Session, order_hash: str) -> OrderRow | None:
    """An order by its hash."""
    return tx.get(OrderRow, order_hash)


def order_at(tx: Session, session_id: str, seq: int) -> OrderRow | None:
    """The order at one place of a session."""
    query = select(OrderRow).where(OrderRow.session_id == session_id, OrderRow.seq == seq)
    return tx.exec(query).first()


def orders_of(tx: Session, job_id: str) -> list[OrderRow]:
    """All orders of a job, first attempt first."""
    query = select(OrderRow).where(OrderRow.job_id == job_id).order_by(col(OrderRow.attempt))
    return list(tx.exec(query))


def end_order(
    tx: Session, order_hash: str, before: OrderState, after: OrderState, problem: str | None = None
) -> None:
    """Ends an order, once. Raises `LostRace` when it is not in `before` any more."""
    told = {"of": order_hash, "before": before.value, "after": after.value, "why": problem}
    if run(tx, _END_ORDER, told).rowcount != 1:
        raise LostRace(ErrorCode.LEASE_LOST, "the order ended meanwhile", order_hash=order_hash)


def mark_accepted(tx: Session, order_hash: str) -> None:
    """The order's node has it on disk. Idempotent."""
    run(tx, _MARK_ACCEPTED, {"of": order_hash})


def renew(tx: Session, node_id: int, order_hashes: Sequence[str], until_ms: int) -> list[str]:
    """Extends leases of a node's open orders; gives back those that were extended."""
    renewed: list[str] = []
    for start in range(0, len(order_hashes), _MANY):
        query = (
            update(OrderRow)
            .where(
                col(OrderRow.order_hash).in_(order_hashes[start : start + _MANY]),
                col(OrderRow.node_id) == node_id,
                col(OrderRow.state) == OrderState.OPEN.value,
            )
            .values(lease_until_ms=until_ms)
            .returning(col(OrderRow.order_hash))
        )
        renewed += [row[0] for row in tx.exec(query, execution_options=_BLIND)]
    return renewed


def grace(tx: Session, until_ms: int) -> None:
    """Extends every open lease at least to `until_ms`: nodes need time to find a restarted gateway."""
    query = (
        update(OrderRow)
        .where(col(OrderRow.state) == OrderState.OPEN.value, col(OrderRow.lease_until_ms) < until_ms)
        .values(lease_until_ms=until_ms)
    )
    tx.exec(query, execution_options=_BLIND)


def lapsed(tx: Session, now_ms: int, limit: int) -> list[str]:
    """Hashes of open orders whose lease ran out before now."""
    return list(run(tx, _LAPSED, {"now": now_ms, "most": limit}).scalars())


def open_of_node(tx: Session, node_id: int) -> list[tuple[OrderRow, JobRow]]:
    """A node's open orders with their jobs, oldest first."""
    query = (
        select(OrderRow, JobRow)
        .join(JobRow, col(JobRow.job_id) == OrderRow.job_id)
        .where(OrderRow.node_id == node_id, OrderRow.state == OrderState.OPEN.value)
        .order_by(col(OrderRow.issued_at_ms))
    )
    return [(order, job) for order, job in tx.exec(query)]


@dataclass(frozen=True, slots=True)
class Place:
    """One seq of a session and whether its order has ended."""

    seq: int
    ended: bool


def places(tx: Session, session_id: str, after_seq: int, limit: int = 10_000) -> list[Place]:
    """Orders of a session above a seq, ascending."""
    told = {"of": session_id, "after": after_seq, "most": limit}
    return [Place(seq, state != OrderState.OPEN) for seq, state in run(tx, _PLACES, told)]


def _flush(tx: Session) -> None:
    try:
        tx.flush()
    except IntegrityError as error:
        raise LostRace(ErrorCode.ORDER_REPLAYED, "the same was stored meanwhile") from error

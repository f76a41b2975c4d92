"""What the keeper shall send: asked for in the same transaction as its reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, and_, bindparam, exists, func, or_, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from marketplace.protocol.transactions import TxState
from marketplace.store.plain import run
from marketplace.store.tables import OutboxRow, TransactionRow


class OutboxState(StrEnum):
    """Life of one thing to send."""

    WAITING = "waiting"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A call somebody wants sent.

    Attributes:
        intent: what for, unique, as in `open:0x…`; asking twice is asking once.
        contract: address called.
        what: for people and logs.
    """

    intent: str
    contract: str
    data: bytes
    what: str
    trace_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """Where a wanted call stands; `problem` says why it failed."""

    outbox_id: int
    wanted: Wanted
    state: OutboxState
    problem: str | None
    created_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxDepth:
    """What has not left yet."""

    waiting: int
    unconfirmed: int
    oldest_waiting_ms: int | None


# What a signed transaction's state means for the entry that wanted it.
_FOLLOWS: Final = {
    TxState.SIGNED: OutboxState.SENT,
    TxState.MINED: OutboxState.SENT,
    TxState.CONFIRMED: OutboxState.CONFIRMED,
    TxState.REVERTED: OutboxState.FAILED,
}
REVERTED: Final = "the transaction was mined and reverted"


def _lags(seen: TxState, state: OutboxState) -> ColumnElement[bool]:
    return and_(col(TransactionRow.state) == seen.value, col(OutboxRow.state) != state.value)


# Built once: these are asked several times a second, mostly to find nothing.
_SAME: Final = col(TransactionRow.intent) == col(OutboxRow.intent)
_BEHIND: Final = select_columns(
    exists().where(_SAME, or_(*(_lags(seen, state) for seen, state in _FOLLOWS.items())))
)
_WAITING: Final = (
    select(OutboxRow)
    .where(col(OutboxRow.state) == OutboxState.WAITING.value)
    .order_by(col(OutboxRow.outbox_id))
    .limit(bindparam("most"))
)
_DEPTH: Final = select_columns(
    col(OutboxRow.state), func.count(), func.min(col(OutboxRow.created_at_ms))
).group_by(col(OutboxRow.state))


def ask(db: Session, wanted: Wanted, *, now_ms: int) -> OutboxEntry:
    """Wants a call sent; returns where it stands, new or not.

    An intent that failed before anything was signed waits again, with the call given now. One whose
    transaction reverted on-chain stays failed: use another intent.
    """
    row = _row(db, wanted.intent)
    if row is None:
        row = _fresh(wanted, now_ms)
        db.add(row)
    elif row.state == OutboxState.FAILED.value and db.get(TransactionRow, wanted.intent) is None:
        row.state, row.problem, row.created_at_ms = OutboxState.WAITING.value, None, now_ms
        row.contract, row.data, row.what = wanted.contract, wanted.data, wanted.what
        row.trace_id = wanted.trace_id
    db.flush()
    return _entry(row)


def find(db: Session, intent: str) -> OutboxEntry | None:
    """Where an intent stands; None when nobody asked."""
    row = _row(db, intent)
    return _entry(row) if row else None


def waiting(db: Session, *, limit: int) -> list[OutboxEntry]:
    """What shall be sent next, oldest first."""
    return [_entry(row) for row in db.exec(_WAITING, params={"most": limit})]


def mark_sent(db: Session, intent: str) -> bool:
    """Signed and persisted; False when it was not waiting."""
    return _move(db, intent, OutboxState.WAITING, OutboxState.SENT, None)


def mark_failed(db: Session, intent: str, problem: str) -> bool:
    """Refused before anything was signed; False when it was not waiting."""
    return _move(db, intent, OutboxState.WAITING, OutboxState.FAILED, problem)


def explain(db: Session, intent: str, problem: str) -> None:
    """Says better why an entry failed."""
    failed = (col(OutboxRow.intent) == intent) & (col(OutboxRow.state) == OutboxState.FAILED.value)
    db.execute(update(OutboxRow).where(failed).values(problem=problem))


def is_behind(db: Session) -> bool:
    """Whether `follow_transactions` would move any."""
    return bool(run(db, _BEHIND).scalar())


def follow_transactions(db: Session) -> list[OutboxEntry]:
    """Brings every entry to where its signed transaction stands; returns those that moved.

    Needs no memory of what was done before, so a crash between journal and outbox heals here.
    """
    moved: list[OutboxEntry] = []
    for seen, state in _FOLLOWS.items():
        lagging = select(OutboxRow).join(TransactionRow, _SAME).where(_lags(seen, state))
        for row in db.exec(lagging).all():
            row.state = state.value
            row.problem = REVERTED if state is OutboxState.FAILED else None
            moved.append(_entry(row))
    db.flush()
    return moved


def depth(db: Session) -> OutboxDepth:
    """How much waits, and since when."""
    found = {state: (count, since) for state, count, since in run(db, _DEPTH)}
    waits, oldest = found.get(OutboxState.WAITING.value, (0, None))
    unconfirmed, _ = found.get(OutboxState.SENT.value, (0, None))
    return OutboxDepth(waiting=waits, unconfirmed=unconfirmed, oldest_waiting_ms=oldest)


def _row(db: Session, intent: str) -> OutboxRow | None:
    return db.exec(select(OutboxRow).where(col(OutboxRow.intent) == intent)).first()


def _move(db: Session, intent: str, before: OutboxState, after: OutboxState, problem: str | None) -> bool:
    guarded = update(OutboxRow).where(col(OutboxRow.intent) == intent, col(OutboxRow.state) == before.value)
    moved = guarded.values(state=after.value, problem=problem).returning(col(OutboxRow.intent))
    return bool(db.execute(moved).all())


def _fresh(wanted: Wanted, now_ms: int) -> OutboxRow:
    return OutboxRow(
        intent=wanted.intent,
        contract=wanted.contract,
        data=wanted.data,
        what=wanted.what,
        trace_id=wanted.trace_id,
        created_at_ms=now_ms,
    )


def _entry(row: OutboxRow) -> OutboxEntry:
    wanted = Wanted(
        intent=row.intent, contract=row.contract, data=row.data, what=row.what, trace_id=row.trace_id
    )
    return OutboxEntry(
        outbox_id=row.outbox_id or 0,
        wanted=wanted,
        state=OutboxState(row.state),
        problem=row.problem,
        created_at_ms=row.created_at_ms,
    )

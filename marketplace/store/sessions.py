"""Sessions as the market spends them. Chain columns belong to `projection`; here only promises change."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    SQLColumnExpression,
    Update,
    bindparam,
    case,
    func,
)
from sqlalchemy.sql.dml import ReturningUpdate
from sqlmodel import Session, col, select, update
from sqlmodel.sql.expression import SelectOfScalar

from marketplace.protocol.errors import ErrorCode, LostRace
from marketplace.protocol.phases import EndReason, JobPhase
from marketplace.store import webhooks
from marketplace.store.plain import run, table_of
from marketplace.store.tables import AccountRow, JobRow, ReceiptRow, SessionRow, SessionTermsRow

MAX_SEQ = (1 << 32) - 1
_Number = SQLColumnExpression[int]
_BLIND = {"synchronize_session": False}


def find(tx: Session, session_id: str) -> SessionRow | None:
    """A session the chain has shown us."""
    return tx.get(SessionRow, session_id)


def find_fresh(tx: Session, session_id: str) -> SessionRow | None:
    """The same as the database has it now: updates here pass rows by that are loaded already."""
    return tx.get(SessionRow, session_id, populate_existing=True)


def of_key(tx: Session, key: str) -> list[SessionRow]:
    """Sessions of a key, soonest to expire first."""
    query = select(SessionRow).where(SessionRow.key == key).order_by(col(SessionRow.expires_at))
    return list(tx.exec(query))


def spendable(tx: Session, key: str, node_ids: Sequence[int]) -> list[SessionRow]:
    """A key's sessions with these nodes that are not closed, soonest to expire first.

    Without those of `taken_back`: no voucher will be signed for what they would pay.
    """
    return list(tx.exec(_spendable(), params={"key": key, "nodes": list(node_ids)}))


def taken_back(tx: Session, session_id: str) -> bool:
    """Whether an order of the session was refunded while others go on.

    A voucher pays every order up to its seq, so one more would charge what was given back. The node claims
    what it is still owed, receipt by receipt.
    """
    return run(tx, _is_taken_back(), {"of": session_id}).first() is not None


def of_buyer(tx: Session, buyer: str) -> list[SessionRow]:
    """Sessions of a buyer, newest block first."""
    query = select(SessionRow).where(SessionRow.buyer == buyer).order_by(col(SessionRow.opened_block).desc())
    return list(tx.exec(query))


def account(tx: Session, buyer: str) -> AccountRow | None:
    """A buyer's free balance."""
    return tx.get(AccountRow, buyer)


def left_atoms(row: SessionRow) -> int:
    """What new orders may still reserve; never below zero."""
    spent = max(row.owed_atoms, row.paid_atoms)
    return max(0, row.deposited_atoms - spent - row.reserved_atoms)


def committed_atoms(tx: Session, key: str) -> int:
    """What all sessions of a key have paid, owe and keep for running orders."""
    spent = _greater(col(SessionRow.owed_atoms), col(SessionRow.paid_atoms))
    total = select(func.sum(spent + col(SessionRow.reserved_atoms))).where(SessionRow.key == key)
    return int(tx.exec(total).one() or 0)


def reserve(tx: Session, session_id: str, atoms: int) -> int:
    """Sets `atoms` aside and takes the next seq, in one guarded update.

    Raises:
        LostRace: too little is left by now, or the session is closed or unknown.
    """
    taken = run(tx, _reserve(), {"of": session_id, "atoms": atoms}).first()
    if taken is None or taken[0] - 1 > MAX_SEQ:
        raise LostRace(ErrorCode.SESSION_UNDERFUNDED, "somebody else reserved first", session_id=session_id)
    return int(taken[0]) - 1


def reserve_at(tx: Session, session_id: str, atoms: int, seq: int) -> None:
    """Sets `atoms` aside for a seq its key chose. Raises `LostRace` like `reserve`."""
    query = (
        update(SessionRow)
        .where(col(SessionRow.session_id) == session_id, *_has_left(atoms))
        .values(
            reserved_atoms=col(SessionRow.reserved_atoms) + atoms,
            next_seq=_greater(col(SessionRow.next_seq), seq + 1),
        )
    )
    if tx.exec(query, execution_options=_BLIND).rowcount != 1:
        raise LostRace(ErrorCode.SESSION_UNDERFUNDED, "somebody else reserved first", session_id=session_id)


def release(tx: Session, session_id: str, *, reserved_atoms: int, owed_atoms: int = 0) -> None:
    """Ends a reservation; `owed_atoms` of it are now owed to the node."""
    told = {"of": session_id, "reserved": reserved_atoms, "owed": owed_atoms}
    run(tx, _release(), told)
    if owed_atoms:
        webhooks.warn(tx, session_id)


def keep_terms(tx: Session, row: SessionTermsRow) -> None:
    """Remembers the signed `Open` of a session. Idempotent."""
    tx.merge(row)


def terms(tx: Session, session_id: str) -> SessionTermsRow | None:
    """The signed `Open` of a session asked for here."""
    return tx.get(SessionTermsRow, session_id)


def terms_of_key(tx: Session, key: str) -> list[SessionTermsRow]:
    """Opens of a key that were asked for here, newest first."""
    query = select(SessionTermsRow).where(SessionTermsRow.key == key)
    return list(tx.exec(query.order_by(col(SessionTermsRow.asked_at_ms).desc())))


def returnable(tx: Session, past_at: int, limit: int) -> list[SessionTermsRow]:
    """Terms of sessions expired before `past_at` (Unix seconds) that the chain has not closed."""
    query = (
        select(SessionTermsRow)
        .join(SessionRow, col(SessionRow.session_id) == SessionTermsRow.session_id)
        .where(col(SessionTermsRow.expires_at) < past_at, col(SessionRow.closed).is_(False))
        .order_by(col(SessionTermsRow.expires_at))
        .limit(limit)
    )
    return list(tx.exec(query))


# Built once, and for the table instead of its class: these run for every job, and building them took longer
# than the database does.
@cache
def _is_taken_back() -> SelectOfScalar[str]:
    return _taken_back().where(col(ReceiptRow.session_id) == bindparam("of")).limit(1)


@cache
def _spendable() -> SelectOfScalar[SessionRow]:
    key: BindParameter[str] = bindparam("key")
    return (
        select(SessionRow)
        .where(
            col(SessionRow.key) == key,
            col(SessionRow.node_id).in_(bindparam("nodes", expanding=True)),
            col(SessionRow.closed).is_(False),
        )
        .where(col(SessionRow.session_id).not_in(_taken_back().where(col(JobRow.key) == key)))
        .order_by(col(SessionRow.expires_at), col(SessionRow.session_id))
        # Another order of this very transaction may have reserved since they were read.
        .execution_options(populate_existing=True)
    )


@cache
def _reserve() -> ReturningUpdate[int]:
    table, atoms = table_of(SessionRow), bindparam("atoms", type_=BigInteger)
    values = {"reserved_atoms": table.c.reserved_atoms + atoms, "next_seq": table.c.next_seq + 1}
    mine = update(table).where(table.c.session_id == bindparam("of"), *_has_left(atoms))
    return mine.values(values).returning(table.c.next_seq)


@cache
def _release() -> Update:
    table = table_of(SessionRow)
    rest = table.c.reserved_atoms - bindparam("reserved", type_=BigInteger)
    values = {
        "reserved_atoms": _greater(rest, 0),
        "owed_atoms": table.c.owed_atoms + bindparam("owed", type_=BigInteger),
    }
    return update(table).where(table.c.session_id == bindparam("of")).values(values)


def _taken_back() -> SelectOfScalar[str]:
    reasons = [EndReason.COURT_REFUNDED.value, EndReason.UNCLAIMED.value]
    return (
        select(ReceiptRow.session_id)
        .join(JobRow, col(JobRow.order_hash) == ReceiptRow.order_hash)
        .where(JobRow.phase == JobPhase.REFUNDED.value, col(JobRow.end_reason).in_(reasons))
    )


def _has_left(atoms: _Number | int) -> tuple[ColumnElement[bool], ...]:
    spent = _greater(col(SessionRow.owed_atoms), col(SessionRow.paid_atoms))
    left = col(SessionRow.deposited_atoms) - spent - col(SessionRow.reserved_atoms)
    return (col(SessionRow.closed).is_(False), left >= atoms)


def _greater(left: _Number, right: _Number | int) -> ColumnElement[int]:
    # SQLite calls it max(a, b), PostgreSQL greatest(a, b); CASE is the same in both.
    return case((left >= right, left), else_=right)

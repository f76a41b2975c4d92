"""Quotes that somebody without an account paid, from the first sight of the payment to its last refund."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from marketplace.protocol.errors import ErrorCode, LostRace
from marketplace.store.tables import KeyRow, PaymentRow


def find(tx: Session, receiver: str) -> PaymentRow | None:
    """The payment to a receiver."""
    return tx.get(PaymentRow, receiver)


def find_identified(tx: Session, identifier: str) -> PaymentRow | None:
    """The payment of a call that its payer gave this name."""
    return tx.exec(select(PaymentRow).where(PaymentRow.identifier == identifier)).first()


def add(tx: Session, row: PaymentRow, key: KeyRow) -> None:
    """Keeps a fresh payment and its quote's key. Raises `LostRace` when they are there by now."""
    tx.add_all([row, key])
    try:
        tx.flush()
    except IntegrityError as error:
        raise LostRace(ErrorCode.INTERNAL, f"the payment to {row.receiver} is kept already") from error


def undone(tx: Session, limit: int) -> list[PaymentRow]:
    """Payments of which something is left to do, soonest due first."""
    query = select(PaymentRow).where(col(PaymentRow.done).is_(False))
    return list(tx.exec(query.order_by(col(PaymentRow.due_at), col(PaymentRow.receiver)).limit(limit)))


def count_refund(tx: Session, row: PaymentRow) -> None:
    """One more refund is on the chain, and folded."""
    row.refunds += 1
    tx.add(row)


def end(tx: Session, row: PaymentRow) -> None:
    """Nothing is left to do."""
    row.done = True
    tx.add(row)

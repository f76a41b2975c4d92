"""Quotes that somebody without an account paid, from the first sight of the payment to its last refund."""

from __future__ import annotations

from sqlmodel import Session, col, select

from marketplace.store.tables import PaymentRow


def find(tx: Session, receiver: str) -> PaymentRow | None:
    """The payment to a receiver."""
    return tx.get(PaymentRow, receiver)


def find_identified(tx: Session, identifier: str) -> PaymentRow | None:
    """The payment of a call that its payer gave this name."""
    return tx.exec(select(PaymentRow).where(PaymentRow.identifier == identifier)).first()


def add(tx: Session, row: PaymentRow) -> None:
    """Keeps a payment that was not there yet."""
    tx.add(row)
    tx.flush()


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

"""A key's receipts and payments, page by page; everything of it in order of its sessions for an export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, tuple_
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import Select

from marketplace.protocol.phases import JobPhase
from marketplace.store import events
from marketplace.store.events import EventFact
from marketplace.store.tables import ChainEventRow, JobRow, OrderRow, ReceiptRow, SessionRow

_MONEY: Final = (
    *("SessionOpened", "SessionToppedUp", "SessionClosed"),
    *("VoucherSettled", "ClaimFinalised", "ClaimResolved"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """A receipt with its job and its order."""

    receipt: ReceiptRow
    job: JobRow
    order: OrderRow

    @property
    def is_the_jobs(self) -> bool:
        """Whether the job stands on this receipt, and not on another node's."""
        return self.job.order_hash == self.receipt.order_hash

    @property
    def charged_atoms(self) -> int:
        """What it takes, or will take, out of its session."""
        given_back = self.is_the_jobs and self.job.phase == JobPhase.REFUNDED
        return 0 if self.receipt.superseded or given_back else self.receipt.amount_atoms


class PaymentKind(StrEnum):
    """Which way money went: into a session, to its node, or back to the account."""

    OPENED = "opened"
    TOPPED_UP = "topped_up"
    PAID = "paid"
    RETURNED = "returned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """Money that a transaction moved; `place` is its order in the chain."""

    place: tuple[int, int, int]
    kind: PaymentKind
    session: SessionRow
    amount_atoms: int
    tx_hash: str

    @property
    def payment_id(self) -> str:
        """Public id; another transaction has it only after a reorganisation."""
        return "pay_" + "_".join(map(str, self.place))


def receipts_of_key(tx: Session, key: str, *, limit: int, after: str | None) -> list[Billed]:
    """A key's receipts, newest first, from the one after `after`; from the newest where that is unknown."""
    last = tx.exec(select(ReceiptRow).where(ReceiptRow.receipt_id == after)).first() if after else None
    when, which = col(ReceiptRow.received_at_ms), col(ReceiptRow.order_hash)
    query = _billed().where(JobRow.key == key)
    if last is not None:
        older = when < last.received_at_ms
        query = query.where(older | ((when == last.received_at_ms) & (which > last.order_hash)))
    return [_bill(row) for row in tx.exec(query.order_by(when.desc(), which).limit(limit))]


def receipts_of_session(
    tx: Session, session_id: str, *, after_seq: int, limit: int, since_ms: int
) -> list[Billed]:
    """A session's receipts above a seq, ascending; only those that came since then."""
    query = _billed().where(
        OrderRow.session_id == session_id,
        col(OrderRow.seq) > after_seq,
        col(ReceiptRow.received_at_ms) >= since_ms,
    )
    return [_bill(row) for row in tx.exec(query.order_by(col(OrderRow.seq)).limit(limit))]


def sessions_after(tx: Session, key: str, after_id: str, limit: int) -> list[SessionRow]:
    """A key's sessions in order of id; all of them, piece by piece."""
    query = select(SessionRow).where(SessionRow.key == key, col(SessionRow.session_id) > after_id)
    return list(tx.exec(query.order_by(col(SessionRow.session_id)).limit(limit)))


def payments_of_key(
    tx: Session, key: str, *, limit: int, before: tuple[int, int, int] | None
) -> tuple[list[Payment], bool]:
    """A key's payments below a place of the chain, newest first; and whether there are more."""
    mine = select(SessionRow.session_id).where(SessionRow.key == key)
    place = (col(ChainEventRow.block_number), col(ChainEventRow.log_index), col(ChainEventRow.part))
    query = select(ChainEventRow).where(col(ChainEventRow.subject).in_(mine), _moves_money())
    if before is not None:
        query = query.where(tuple_(*place) < before)
    found: list[Payment] = []
    known: dict[str, dict[tuple[int, int, int], Payment]] = {}
    # An event may move nothing, so that a page is filled event by event.
    for row in tx.exec(query.order_by(*(part.desc() for part in place)).execution_options(yield_per=200)):
        if row.subject not in known:
            session = tx.get(SessionRow, row.subject)
            moved = payments_of_session(tx, session) if session else []
            known[row.subject] = {payment.place: payment for payment in moved}
        payment = known[row.subject].get((row.block_number, row.log_index, row.part))
        if payment is None:
            continue
        if len(found) == limit:
            return found, True
        found.append(payment)
    return found, False


def payments_of_session(tx: Session, session: SessionRow) -> list[Payment]:
    """What moved money into and out of a session, in order of the chain."""
    about = [event for event in events.events_about(tx, [session.session_id]) if event.name in _MONEY]
    return _payments(session, about)


def _payments(session: SessionRow, about: Sequence[EventFact]) -> list[Payment]:
    found: list[Payment] = []
    paid, closed = 0, False

    def add(event: EventFact, kind: PaymentKind, atoms: int) -> None:
        if atoms:
            found.append(
                Payment(
                    place=event.place, kind=kind, session=session, amount_atoms=atoms, tx_hash=event.tx_hash
                )
            )

    for event in about:
        args = event.args
        match event.name:
            case "SessionOpened":
                add(event, PaymentKind.OPENED, args["amount"])
            case "SessionToppedUp":
                add(event, PaymentKind.TOPPED_UP, args["added"])
            case "VoucherSettled" | "ClaimFinalised":
                # The event says what is paid in all.
                add(event, PaymentKind.PAID, args["paid"] - paid)
                paid = args["paid"]
            case "ClaimResolved" if args["isPaid"]:
                add(event, PaymentKind.PAID, args["amount"])
                paid += args["amount"]
            case "ClaimResolved" if closed:
                add(event, PaymentKind.RETURNED, args["amount"])
            case "SessionClosed":
                add(event, PaymentKind.RETURNED, args["returned"])
                closed = True
    return found


def _moves_money() -> ColumnElement[bool]:
    return col(ChainEventRow.name).in_(_MONEY)


def _billed() -> Select[ReceiptRow, JobRow, OrderRow]:
    return (
        select(ReceiptRow, JobRow, OrderRow)
        .join(OrderRow, col(OrderRow.order_hash) == ReceiptRow.order_hash)
        .join(JobRow, col(JobRow.job_id) == ReceiptRow.job_id)
    )


def _bill(row: tuple[ReceiptRow, JobRow, OrderRow]) -> Billed:
    receipt, job, order = row
    return Billed(receipt=receipt, job=job, order=order)

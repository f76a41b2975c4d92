"""Taking an order: what is already promised is counted and the order stored in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from threading import Lock

from sqlalchemy import func, or_
from sqlmodel import Session, col, select

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.sealed import Responses
from worker.ledger.base import Database
from worker.ledger.orders import UNFINISHED, HeldOrder, OrderRow
from worker.ledger.receipts import ReceiptRow
from worker.ledger.seals import SealRow
from worker.ledger.sessions import SessionRow
from worker.ledger.vouchers import VoucherRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What is promised out of one session, and by the whole node.

    Attributes:
        vouchered_atoms: the session's newest voucher, through `vouchered_seq`.
        owed_atoms: its receipts after that voucher, without waived ones.
        in_flight_atoms: maximum amounts of its unfinished orders.
        node_exposed_atoms: owed and in flight over all sessions that can still pay.
        unfinished: orders of the node without a receipt.
    """

    vouchered_seq: int = 0
    vouchered_atoms: int = 0
    owed_atoms: int = 0
    in_flight_atoms: int = 0
    node_exposed_atoms: int = 0
    unfinished: int = 0


class Acceptance:
    """The only way an order enters the ledger."""

    def __init__(self, database: Database, turn: Lock) -> None:
        """`turn` is shared with the vouchers: what is promised and what has ended change one at a time."""
        self._database = database
        self._turn = turn

    def take(
        self,
        order: HeldOrder,
        judge: Callable[[Usage], None],
        *,
        pays_after: int,
        seal: Responses | None = None,
    ) -> None:
        """Stores an order when `judge` finds that all that is promised still fits.

        Args:
            order: the order, every other check passed.
            judge: raises `BadRequest` to refuse.
            pays_after: sessions that expired before this (Unix seconds) no longer count as exposure.
            seal: what its answer is sealed with; None for a plain one.

        Raises:
            BadRequest: judged too much, or the place in the session is taken.
        """
        # SQLite's write lock would do; PostgreSQL would let two orders each find room for one.
        with self._turn, self._database.write() as session:
            taken = select(OrderRow.order_hash).where(
                OrderRow.session_id == order.session_id, OrderRow.seq == order.seq
            )
            if session.exec(taken).first() is not None:
                raise BadRequest(ErrorCode.ORDER_REPLAYED, f"seq {order.seq} of this session was used")
            judge(_usage(session, order.session_id, pays_after))
            session.add(OrderRow(**asdict(order)))
            if seal is not None:
                session.add(SealRow(order_hash=order.order_hash, secret=seal.secret))

    def usage(self, session_id: bytes, *, pays_after: int) -> Usage:
        """What is promised out of a session now."""
        with self._database.read() as session:
            return _usage(session, session_id, pays_after)


def _usage(session: Session, session_id: bytes, pays_after: int) -> Usage:
    voucher = session.get(VoucherRow, session_id)
    after = voucher.through_seq if voucher else 0
    owed = select(func.coalesce(func.sum(ReceiptRow.amount_atoms), 0)).where(
        ReceiptRow.session_id == session_id, ReceiptRow.seq > after, col(ReceiptRow.waived).is_(False)
    )
    in_flight = select(func.coalesce(func.sum(OrderRow.max_amount_atoms), 0)).where(
        OrderRow.session_id == session_id, col(OrderRow.state).in_(UNFINISHED)
    )
    unfinished = select(func.count()).where(col(OrderRow.state).in_(UNFINISHED))
    return Usage(
        vouchered_seq=after,
        vouchered_atoms=voucher.amount_atoms if voucher else 0,
        owed_atoms=int(session.exec(owed).one()),
        in_flight_atoms=int(session.exec(in_flight).one()),
        node_exposed_atoms=_exposed_atoms(session, pays_after),
        unfinished=int(session.exec(unfinished).one()),
    )


def _exposed_atoms(session: Session, pays_after: int) -> int:
    can_pay = or_(col(SessionRow.expires_at).is_(None), col(SessionRow.expires_at) > pays_after)
    owed = (
        select(func.coalesce(func.sum(ReceiptRow.amount_atoms), 0))
        .join(SessionRow, col(SessionRow.session_id) == ReceiptRow.session_id, isouter=True)
        .where(col(ReceiptRow.open).is_(True), can_pay)
    )
    in_flight = select(func.coalesce(func.sum(OrderRow.max_amount_atoms), 0)).where(
        col(OrderRow.state).in_(UNFINISHED)
    )
    return int(session.exec(owed).one()) + int(session.exec(in_flight).one())

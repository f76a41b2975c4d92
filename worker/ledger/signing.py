"""Ending an order: one signature, stored before it leaves, then confirmed by the gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from marketplace.protocol.errors import ErrorCode, LostRace
from worker.ledger.base import Database
from worker.ledger.chunks import ChunkRow
from worker.ledger.orders import HeldOrder, OrderRow, OrderState, held_order
from worker.ledger.receipts import HeldReceipt, ReceiptRow, SignedReceipt, held_receipt

MakeReceipt = Callable[[HeldOrder, Sequence[bytes]], SignedReceipt]


class Signing:
    """The only way a receipt enters the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def once(self, order_hash: bytes, worker: str | None, make: MakeReceipt, *, now_ms: int) -> HeldReceipt:
        """The order's receipt: the stored one, else the one `make` signs now.

        `make` runs inside the transaction that checks the lease, so that a loser never signs at all. It gets
        the order and every chunk body stored for it.

        Args:
            order_hash: an accepted order.
            worker: holder of the worker lease; None to end an order nobody works on.
            make: builds and signs; must not touch the ledger or the network.
            now_ms: decides whether a lease still stands.

        Raises:
            LostRace: unknown order, or another process holds the lease.
        """
        try:
            with self._database.write() as session:
                stored = session.get(ReceiptRow, order_hash)
                if stored is not None:
                    return held_receipt(stored)
                order = session.get(OrderRow, order_hash)
                if order is None or not _may_sign(order, worker, now_ms):
                    raise LostRace(ErrorCode.LEASE_LOST, "another process may be finishing this order")
                bodies = select(ChunkRow.body).where(ChunkRow.order_hash == order_hash)
                made = make(held_order(order), list(session.exec(bodies.order_by(col(ChunkRow.place)))))
                row = ReceiptRow(
                    order_hash=order_hash, session_id=order.session_id, seq=order.seq, **asdict(made)
                )
                order.state = OrderState.RECEIPTED.value
                session.add(row)
                session.add(order)
                return held_receipt(row)
        except IntegrityError as error:
            raise LostRace(ErrorCode.LEASE_LOST, "another process finished this order first") from error

    def delivered(self, order_hash: bytes, *, now_ms: int) -> None:
        """Notes that the gateway has the receipt. Idempotent; unknown orders are passed over."""
        with self._database.write() as session:
            receipt = session.get(ReceiptRow, order_hash)
            order = session.get(OrderRow, order_hash)
            if receipt is None or order is None or receipt.delivered_at_ms is not None:
                return
            receipt.delivered_at_ms = now_ms
            order.state = OrderState.DELIVERED.value
            session.add(receipt)
            session.add(order)


def _may_sign(order: OrderRow, worker: str | None, now_ms: int) -> bool:
    if order.state not in (OrderState.QUEUED.value, OrderState.RUNNING.value):
        return False
    if worker is None:
        return order.worker_lease_until_ms <= now_ms
    return order.worker == worker and order.state == OrderState.RUNNING.value

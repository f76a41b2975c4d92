"""Ending an order: one signature, stored before it leaves, then confirmed by the gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy.exc import IntegrityError

from marketplace.protocol.errors import ErrorCode, LostRace
from worker.ledger.base import Database, Plain
from worker.ledger.orders import ORDER, HeldOrder, OrderState
from worker.ledger.receipts import RECEIPT, HeldReceipt, SignedReceipt, plain_receipt

MakeReceipt = Callable[[HeldOrder, Sequence[bytes]], SignedReceipt]


# In the order of `_ADD`.
_MADE: Final = (
    "digest", "message", "signature", "annex", "amount_atoms", "status", "chunks", "signed_at_ms",
)  # fmt: skip
_BODIES: Final = "SELECT body FROM chunk WHERE order_hash = ? ORDER BY place"
_ADD: Final = (
    "INSERT INTO receipt (order_hash, session_id, seq, digest, message, signature, annex, amount_atoms,"
    ' status, chunks, signed_at_ms, waived, "open") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
)
_KEEP: Final = "INSERT INTO trace (order_hash, body) VALUES (?, ?)"
_DELIVERED: Final = "UPDATE receipt SET delivered_at_ms = ? WHERE order_hash = ? AND delivered_at_ms IS NULL"
_END: Final = "UPDATE job_order SET state = ? WHERE order_hash = ?"


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
            with self._database.write_plain() as plain:
                return end(plain, order_hash, worker, make, now_ms=now_ms)
        except IntegrityError as error:
            raise LostRace(ErrorCode.LEASE_LOST, "another process finished this order first") from error

    def delivered(self, order_hash: bytes, *, now_ms: int) -> None:
        """Notes that the gateway has the receipt. Idempotent; unknown orders are passed over."""
        with self._database.write_plain() as plain:
            if plain.run(_DELIVERED, (now_ms, order_hash)):
                plain.run(_END, (OrderState.DELIVERED.value, order_hash))


def end(
    plain: Plain, order_hash: bytes, worker: str | None, make: MakeReceipt, *, now_ms: int
) -> HeldReceipt:
    """As `Signing.once`, inside a transaction; nothing is changed when it raises `LostRace`."""
    stored = plain.row(RECEIPT, (order_hash,))
    if stored is not None:
        return plain_receipt(stored)
    found = plain.row(ORDER, (order_hash,))
    order = HeldOrder(**found) if found else None
    if order is None or not _may_sign(order, worker, now_ms):
        raise LostRace(ErrorCode.LEASE_LOST, "another process may be finishing this order")
    made = make(order, [bytes(row[0]) for row in plain.rows(_BODIES, (order_hash,))])
    fields = {name: getattr(made, name) for name in _MADE}
    if made.trace:
        plain.run(_KEEP, (order_hash, made.trace))
    plain.run(_ADD, (order_hash, order.session_id, order.seq, *fields.values(), False, True))
    plain.run(_END, (OrderState.RECEIPTED.value, order_hash))
    return HeldReceipt(order_hash=order_hash, session_id=order.session_id, seq=order.seq, **fields)


def _may_sign(order: HeldOrder, worker: str | None, now_ms: int) -> bool:
    if order.state not in (OrderState.QUEUED.value, OrderState.RUNNING.value):
        return False
    if worker is None:
        return order.worker_lease_until_ms <= now_ms
    return order.worker == worker and order.state == OrderState.RUNNING.value

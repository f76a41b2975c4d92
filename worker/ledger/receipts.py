"""Signed receipts: at most one an order, kept as the exact bytes that leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import UniqueConstraint, func, update
from sqlmodel import Field, col, select

from marketplace.protocol.messages import ReceiptStatus
from worker.ledger.base import Database, Table, big, blob


class ReceiptRow(Table, table=True):
    """One receipt; `open` while it is neither vouchered nor waived, and no claim has ended it."""

    __tablename__ = "receipt"
    __table_args__ = (UniqueConstraint("session_id", "seq"),)
    order_hash: bytes = Field(sa_column=blob(primary_key=True))
    session_id: bytes = Field(sa_column=blob())
    seq: int = Field(sa_column=big())
    digest: bytes = Field(sa_column=blob())
    message: bytes = Field(sa_column=blob())
    signature: bytes = Field(sa_column=blob())
    annex: bytes = Field(sa_column=blob())
    amount_atoms: int = Field(sa_column=big())
    status: int
    chunks: int
    signed_at_ms: int = Field(sa_column=big())
    sent_at_ms: int | None = Field(default=None, sa_column=big(nullable=True))
    delivered_at_ms: int | None = Field(default=None, sa_column=big(nullable=True))
    waived: bool = False
    open: bool = Field(default=True, index=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedReceipt:
    """A receipt fresh from the signing key, and the trace its annex commits to; empty for none."""

    digest: bytes
    message: bytes
    signature: bytes
    annex: bytes
    amount_atoms: int
    status: int
    chunks: int
    signed_at_ms: int
    trace: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldReceipt:
    """A stored receipt.

    Attributes:
        sent_at_ms: when it last left for the gateway.
        delivered_at_ms: when the gateway confirmed it.
        waived: delivered too late; not owed.
    """

    order_hash: bytes
    session_id: bytes
    seq: int
    digest: bytes
    message: bytes
    signature: bytes
    annex: bytes
    amount_atoms: int
    status: int
    chunks: int
    signed_at_ms: int
    sent_at_ms: int | None = None
    delivered_at_ms: int | None = None
    waived: bool = False
    open: bool = True


RECEIPT: Final = "SELECT * FROM receipt WHERE order_hash = ?"
_LEASE: Final = "SELECT gateway_lease_until_ms FROM job_order WHERE order_hash = ?"
_SENT: Final = "UPDATE receipt SET sent_at_ms = ? WHERE order_hash = ?"


class Receipts:
    """Receipts by order; they come into being in `worker.ledger.signing` only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, order_hash: bytes) -> HeldReceipt | None:
        """The receipt, or None."""
        with self._database.read_plain() as plain:
            row = plain.row(RECEIPT, (order_hash,))
            return plain_receipt(row) if row else None

    def leased(self, order_hash: bytes) -> tuple[HeldReceipt, int] | None:
        """The receipt, and until when the gateway keeps its order ours; or None."""
        with self._database.read_plain() as plain:
            # The lease first: it only moves on, so what is read is never too late.
            lease = plain.rows(_LEASE, (order_hash,))
            found = plain.row(RECEIPT, (order_hash,))
        return (plain_receipt(found), int(lease[0][0])) if found and lease else None

    def sent(self, order_hash: bytes, *, now_ms: int) -> None:
        """Notes that the receipt left for the gateway."""
        with self._database.write_plain() as plain:
            plain.run(_SENT, (now_ms, order_hash))

    def waive(self, order_hash: bytes) -> bool:
        """Gives up a receipt's amount; False when a voucher already covers it."""
        change = (
            update(ReceiptRow)
            .where(col(ReceiptRow.order_hash) == order_hash, col(ReceiptRow.open).is_(True))
            .values(waived=True, open=False)
        )
        with self._database.write() as session:
            return bool(session.exec(change).rowcount)

    def answers(self) -> int:
        """How many receipts there are for more than nothing."""
        query = select(func.count()).where(col(ReceiptRow.status) != ReceiptStatus.FAILED.value)
        with self._database.read() as session:
            return int(session.exec(query).one())

    def totals(self) -> dict[str, int]:
        """Number and amount of receipts: all, without a voucher, waived."""
        query = select(
            ReceiptRow.open, ReceiptRow.waived, func.count(), func.sum(ReceiptRow.amount_atoms)
        ).group_by(col(ReceiptRow.open), col(ReceiptRow.waived))
        found = {
            "receipts": 0,
            "receipts_atoms": 0,
            "open": 0,
            "open_atoms": 0,
            "waived": 0,
            "waived_atoms": 0,
        }
        with self._database.read() as session:
            for is_open, waived, number, amount in session.exec(query):
                names = ["receipts"] + ["open"] * bool(is_open) + ["waived"] * bool(waived)
                for name in names:
                    found[name] += int(number)
                    found[f"{name}_atoms"] += int(amount or 0)
        return found


def plain_receipt(row: Mapping[str, Any]) -> HeldReceipt:
    """View of a row that was read without the mapper; SQLite has numbers for yes and no."""
    return HeldReceipt(**dict(row) | {"waived": bool(row["waived"]), "open": bool(row["open"])})

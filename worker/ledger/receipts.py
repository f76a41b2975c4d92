"""Signed receipts: at most one an order, kept as the exact bytes that leave."""

from __future__ import annotations

from dataclasses import dataclass

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


class Receipts:
    """Receipts by order; they come into being in `worker.ledger.signing` only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, order_hash: bytes) -> HeldReceipt | None:
        """The receipt, or None."""
        with self._database.read() as session:
            row = session.get(ReceiptRow, order_hash)
            return held_receipt(row) if row else None

    def sent(self, order_hash: bytes, *, now_ms: int) -> None:
        """Notes that the receipt left for the gateway."""
        change = update(ReceiptRow).where(col(ReceiptRow.order_hash) == order_hash).values(sent_at_ms=now_ms)
        with self._database.write() as session:
            session.exec(change)

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


def held_receipt(row: ReceiptRow) -> HeldReceipt:
    """View of a row."""
    return HeldReceipt(**row.model_dump())

"""Signed transactions of this node: the `TxJournal` of the protocol, in the ledger."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import UniqueConstraint, func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, col, select

from marketplace.protocol.errors import ErrorCode, LostRace
from marketplace.protocol.transactions import TxRecord, TxState
from worker.ledger.base import Database, Table, big, blob


class TransactionRow(Table, table=True):
    """One signed transaction; `raw` is never rebuilt."""

    __tablename__ = "chain_transaction"
    __table_args__ = (UniqueConstraint("sender", "nonce"),)
    intent: str = Field(primary_key=True)
    sender: str = Field(index=True)
    nonce: int = Field(sa_column=big())
    raw: bytes = Field(sa_column=blob())
    tx_hash: bytes = Field(sa_column=blob())
    state: str
    created_at_ms: int = Field(sa_column=big())
    block_number: int | None = Field(default=None, sa_column=big(nullable=True))
    block_hash: bytes | None = Field(default=None, sa_column=blob(nullable=True))
    trace_ids: str = ""


class Transactions:
    """`TxJournal` over the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, intent: str) -> TxRecord | None:
        """The record of an intent."""
        with self._database.read() as session:
            row = session.get(TransactionRow, intent)
            return _record(row) if row else None

    def add(self, record: TxRecord) -> None:
        """Persists a fresh record.

        Raises:
            LostRace: the intent, or this sender's nonce, is taken.
        """
        try:
            with self._database.write() as session:
                session.add(TransactionRow(**asdict(record)))
        except IntegrityError as error:
            raise LostRace(ErrorCode.INTERNAL, f"transaction {record.intent} was signed already") from error

    def mark(
        self, intent: str, state: TxState, *, block_number: int | None, block_hash: bytes | None
    ) -> None:
        """Moves a record on, or back after a reorganisation."""
        change = (
            update(TransactionRow)
            .where(col(TransactionRow.intent) == intent)
            .values(state=state.value, block_number=block_number, block_hash=block_hash)
        )
        with self._database.write() as session:
            session.exec(change)

    def pending(self, sender: str) -> list[TxRecord]:
        """Records of a sender that are signed or mined but not confirmed, by nonce."""
        unfinished = (TxState.SIGNED.value, TxState.MINED.value)
        query = (
            select(TransactionRow)
            .where(TransactionRow.sender == sender, col(TransactionRow.state).in_(unfinished))
            .order_by(col(TransactionRow.nonce))
        )
        with self._database.read() as session:
            return [_record(row) for row in session.exec(query)]

    def next_nonce(self, sender: str) -> int:
        """One above the highest nonce ever signed here; 0 when none was."""
        query = select(func.max(TransactionRow.nonce)).where(TransactionRow.sender == sender)
        with self._database.read() as session:
            highest = session.exec(query).one()
            return 0 if highest is None else int(highest) + 1

    def newest(self, limit: int) -> list[TxRecord]:
        """The newest records of all senders."""
        query = select(TransactionRow).order_by(col(TransactionRow.created_at_ms).desc()).limit(limit)
        with self._database.read() as session:
            return [_record(row) for row in session.exec(query)]


def _record(row: TransactionRow) -> TxRecord:
    return TxRecord(
        intent=row.intent,
        sender=row.sender,
        nonce=row.nonce,
        raw=row.raw,
        tx_hash=row.tx_hash,
        state=TxState(row.state),
        created_at_ms=row.created_at_ms,
        block_number=row.block_number,
        block_hash=row.block_hash,
        trace_ids=row.trace_ids,
    )

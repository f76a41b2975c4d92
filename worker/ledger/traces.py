"""Traces: what the annexes of signed receipts commit to, kept so that a block can be opened."""

from __future__ import annotations

from sqlmodel import Field

from worker.ledger.base import Database, Table, blob


class TraceRow(Table, table=True):
    """All blocks of one answer, written in the transaction that stored its receipt."""

    __tablename__ = "trace"
    order_hash: bytes = Field(sa_column=blob(primary_key=True))
    body: bytes = Field(sa_column=blob())


class Traces:
    """Traces by order; kept as long as their receipts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, order_hash: bytes) -> bytes | None:
        """Blocks as `marketplace.protocol.trace.encode_blocks` made them; None for none."""
        with self._database.read() as session:
            row = session.get(TraceRow, order_hash)
            return row.body if row else None

"""Response chunks, stored before anybody hears of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Column, Integer
from sqlmodel import Field, col, select

from worker.ledger.base import Database, Table, blob
from worker.ledger.orders import OrderRow, OrderState


class ChunkRow(Table, table=True):
    """One chunk of one response, at its index."""

    __tablename__ = "chunk"
    order_hash: bytes = Field(sa_column=blob(primary_key=True))
    place: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    body: bytes = Field(sa_column=blob())
    token_ids: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldChunk:
    """A stored chunk; `token_ids` are the model tokens it carries."""

    index: int
    body: bytes
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewChunk:
    """A chunk one worker made for one order."""

    order_hash: bytes
    index: int
    body: bytes
    token_ids: tuple[int, ...]


class Chunks:
    """Chunks by order and index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, chunks: Sequence[NewChunk], worker: str) -> set[bytes]:
        """Stores chunks of orders this worker holds; gives the orders it no longer holds.

        A chunk that is there already stays as it is: the first bytes are the ones that left.
        """
        hashes = list({chunk.order_hash for chunk in chunks})
        query = select(OrderRow.order_hash).where(
            col(OrderRow.order_hash).in_(hashes),
            OrderRow.worker == worker,
            OrderRow.state == OrderState.RUNNING.value,
        )
        with self._database.write() as session:
            mine = set(session.exec(query))
            for chunk in chunks:
                if chunk.order_hash in mine and not session.get(ChunkRow, (chunk.order_hash, chunk.index)):
                    session.add(
                        ChunkRow(
                            order_hash=chunk.order_hash,
                            place=chunk.index,
                            body=chunk.body,
                            token_ids=json.dumps(chunk.token_ids),
                        )
                    )
        return set(hashes) - mine

    def of(self, order_hash: bytes, first: int = 0) -> list[HeldChunk]:
        """Chunks of an order from index `first` on, in order."""
        query = (
            select(ChunkRow)
            .where(ChunkRow.order_hash == order_hash, ChunkRow.place >= first)
            .order_by(col(ChunkRow.place))
        )
        with self._database.read() as session:
            return [
                HeldChunk(index=row.place, body=row.body, token_ids=tuple(json.loads(row.token_ids)))
                for row in session.exec(query)
            ]

"""Response chunks, stored before anybody hears of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Integer
from sqlmodel import Field, col, select

from worker.ledger.base import Database, Table, blob
from worker.ledger.orders import OrderState


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


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a gateway has not been sent of an order: chunks by index, and perhaps the receipt."""

    order_hash: bytes
    bodies: list[tuple[int, bytes]]
    ended: bool


_RUNNING: Final = "SELECT order_hash FROM job_order WHERE worker = ? AND state = ?"
_ADD: Final = (
    "INSERT INTO chunk (order_hash, place, body, token_ids) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_FROM: Final = "SELECT place, body FROM chunk WHERE order_hash = ? AND place >= ? ORDER BY place"
_ENDED: Final = "SELECT 1 FROM receipt WHERE order_hash = ?"


class Chunks:
    """Chunks by order and index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, chunks: Sequence[NewChunk], worker: str) -> set[bytes]:
        """Stores chunks of orders this worker holds; gives the orders it no longer holds.

        A chunk that is there already stays as it is: the first bytes are the ones that left.
        """
        hashes = {chunk.order_hash for chunk in chunks}
        with self._database.write_plain() as plain:
            running = plain.rows(_RUNNING, (worker, OrderState.RUNNING.value))
            mine = hashes & {bytes(row[0]) for row in running}
            # One statement for all: row by row this is most of what a streaming node's ledger costs.
            plain.run_many(_ADD, [_row(chunk) for chunk in chunks if chunk.order_hash in mine])
        return hashes - mine

    def news(self, places: Mapping[bytes, int]) -> list[News]:
        """For each order what is stored from this index on, and whether its receipt is there, too."""
        found = []
        with self._database.read_plain() as plain:
            for order_hash, first in places.items():
                # The receipt first: when it is there, so is every chunk it counts.
                ended = bool(plain.rows(_ENDED, (order_hash,)))
                rows = plain.rows(_FROM, (order_hash, first))
                bodies = [(int(row[0]), bytes(row[1])) for row in rows]
                if ended or bodies:
                    found.append(News(order_hash=order_hash, bodies=bodies, ended=ended))
        return found

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


def _row(chunk: NewChunk) -> tuple[object, ...]:
    return (chunk.order_hash, chunk.index, chunk.body, json.dumps(chunk.token_ids))

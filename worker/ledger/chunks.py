"""Response chunks, stored before anybody hears of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, Integer
from sqlmodel import Field

from worker.ledger.base import Database, Plain, Table, blob


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


_FROM: Final = "SELECT place, body FROM chunk WHERE order_hash = ? AND place >= ? ORDER BY place"
_OF: Final = "SELECT place, body, token_ids FROM chunk WHERE order_hash = ? ORDER BY place"
_ENDED: Final = "SELECT 1 FROM receipt WHERE order_hash = ?"


class Chunks:
    """Chunks by order and index."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

    def of(self, order_hash: bytes) -> list[HeldChunk]:
        """Chunks of an order, in order."""
        with self._database.read_plain() as plain:
            return chunks_of(plain, order_hash)


def chunks_of(plain: Plain, order_hash: bytes) -> list[HeldChunk]:
    """Chunks of an order, in order."""
    return [
        HeldChunk(index=int(place), body=bytes(body), token_ids=tuple(json.loads(token_ids)))
        for place, body, token_ids in plain.rows(_OF, (order_hash,))
    ]

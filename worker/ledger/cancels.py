"""Orders whose buyer wants no more of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlmodel import Field

from worker.ledger.base import Database, Plain, Table, big, blob, places


class CancelRow(Table, table=True):
    """One order to be cut short."""

    __tablename__ = "cancel"
    order_hash: bytes = Field(sa_column=blob(primary_key=True))
    asked_at_ms: int = Field(sa_column=big())


_ASKED: Final = "SELECT order_hash FROM cancel WHERE order_hash IN"


class Cancels:
    """Orders to be cut short; asking twice is asking once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, order_hash: bytes, *, now_ms: int) -> None:
        """Remembers that an order is to end with what it has."""
        row = CancelRow(order_hash=order_hash, asked_at_ms=now_ms)
        with self._database.write() as session:
            session.connection().execute(self._database.insert_new(CancelRow), [row.model_dump()])

    def among(self, hashes: Iterable[bytes]) -> set[bytes]:
        """Those of these orders that are to be cut short."""
        wanted = tuple(hashes)
        if not wanted:
            return set()
        with self._database.read_plain() as plain:
            return cancelled(plain, wanted)


def cancelled(plain: Plain, hashes: tuple[bytes, ...]) -> set[bytes]:
    """Those of these orders that are to be cut short."""
    return {bytes(row[0]) for row in plain.rows(f"{_ASKED} ({places(len(hashes))})", hashes)}

"""Orders that came sealed, and the secret that seals their answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlmodel import Field

from marketplace.protocol.sealed import Responses
from worker.ledger.base import Database, Table, blob


class SealRow(Table, table=True):
    """One sealed order; written in the transaction that stored it."""

    __tablename__ = "seal"
    order_hash: bytes = Field(sa_column=blob(primary_key=True))
    secret: bytes = Field(sa_column=blob())


_OF: Final = "SELECT secret FROM seal WHERE order_hash = ?"


class Seals:
    """Secrets by order. A node that changes its encryption key still ends what it took before."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def among(self, hashes: Iterable[bytes]) -> dict[bytes, Responses]:
        """What seals the answers of those of these orders that came sealed."""
        with self._database.read_plain() as plain:
            found = {order_hash: plain.rows(_OF, (order_hash,)) for order_hash in hashes}
        return {order_hash: Responses(bytes(rows[0][0])) for order_hash, rows in found.items() if rows}

"""Sessions that were opened for certain, by their whole ids."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlmodel import Field

from marketplace.protocol.batches import SHORT_ID_BYTES
from worker.ledger.base import Database, Table, blob


class OpeningRow(Table, table=True):
    """One opened session, under the beginning of its id that the escrow keeps it under."""

    __tablename__ = "opening"
    short_id: bytes = Field(sa_column=blob(primary_key=True))
    session_id: bytes = Field(sa_column=blob())
    terms: bytes | None = Field(default=None, sa_column=blob(nullable=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOpening:
    """A session whose opening the chain showed. `terms` decodes to `Open`; None: the chain hides them."""

    session_id: bytes
    terms: bytes | None


class Openings:
    """Openings by session; never forgotten, for an id never opens twice."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, opening: HeldOpening) -> None:
        """Stores an opening. Idempotent."""
        self._database.put(OpeningRow(short_id=_short(opening.session_id), **asdict(opening)))

    def get(self, session_id: bytes) -> HeldOpening | None:
        """The opening of the session whose id begins as this one does; its own id may end otherwise."""
        with self._database.read() as session:
            row = session.get(OpeningRow, _short(session_id))
            return HeldOpening(session_id=row.session_id, terms=row.terms) if row else None


def _short(session_id: bytes) -> bytes:
    return session_id[:SHORT_ID_BYTES]

"""Sessions as last read from the chain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from sqlmodel import Field, col, select

from worker.ledger.base import Database, Table, atoms, big, blob


class SessionRow(Table, table=True):
    """One session; `read_at_ms` says how old the reading is."""

    __tablename__ = "session"
    session_id: bytes = Field(sa_column=blob(primary_key=True))
    key: str
    node_id: int = Field(sa_column=big())
    key_epoch: int
    deposited_atoms: int = Field(sa_column=atoms())
    paid_atoms: int = Field(sa_column=atoms())
    through_seq: int = Field(sa_column=big())
    expires_at: int = Field(sa_column=big())
    closed: bool
    read_at_ms: int = Field(sa_column=big())


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldSession:
    """A session's chain facts at `read_at_ms`."""

    session_id: bytes
    key: str
    node_id: int
    key_epoch: int
    deposited_atoms: int
    paid_atoms: int
    through_seq: int
    expires_at: int
    closed: bool
    read_at_ms: int


_SESSION: Final = "SELECT * FROM session WHERE session_id = ?"
_KINDS: Final = {"deposited_atoms": int, "paid_atoms": int, "closed": bool}


class Sessions:
    """Sessions by id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, held: HeldSession) -> None:
        """Stores a reading; the newer of two wins."""
        self._database.put(SessionRow(**asdict(held)), newer="read_at_ms")

    def get(self, session_id: bytes) -> HeldSession | None:
        """The last reading, or None."""
        with self._database.read_plain() as plain:
            row = plain.row(_SESSION, (session_id,))
        # Without the mapper amounts are text, and SQLite has numbers for yes and no.
        return HeldSession(**row | {name: kind(row[name]) for name, kind in _KINDS.items()}) if row else None

    def many(self, session_ids: Iterable[bytes]) -> dict[bytes, HeldSession]:
        """Last readings of several sessions."""
        query = select(SessionRow).where(col(SessionRow.session_id).in_(list(session_ids)))
        with self._database.read() as session:
            return {row.session_id: _held(row) for row in session.exec(query)}


def _held(row: SessionRow) -> HeldSession:
    return HeldSession(**row.model_dump())

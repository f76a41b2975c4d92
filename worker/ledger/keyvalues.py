"""Small facts of a node: its id, what its processes report, what was asked of it."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlmodel import Field

from worker.ledger.base import Database, Table


class NoteRow(Table, table=True):
    """One fact by name."""

    __tablename__ = "note"
    name: str = Field(primary_key=True)
    value: str


_VALUE: Final = "SELECT value FROM note WHERE name = ?"


class KeyValues:
    """Facts by name; the last write wins."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> str | None:
        """Value, or None."""
        with self._database.read_plain() as plain:
            rows = plain.rows(_VALUE, (name,))
            return str(rows[0][0]) if rows else None

    def put(self, name: str, value: str) -> None:
        """Sets a value; writes nothing when it is there already."""
        if self.get(name) == value:
            return
        self._database.put(NoteRow(name=name, value=value))

    def get_json(self, name: str) -> Any:
        """Value read as JSON; None when there is none."""
        text = self.get(name)
        return None if text is None else json.loads(text)

    def put_json(self, name: str, value: Any) -> None:
        """Sets a value as JSON with sorted keys."""
        self.put(name, json.dumps(value, sort_keys=True))

    def remove(self, name: str) -> None:
        """Forgets a fact."""
        with self._database.write() as session:
            row = session.get(NoteRow, name)
            if row:
                session.delete(row)

"""What a long piece of work has bought so far, on disk: each order before it leaves, each answer it brought.

One SQLite file beside the results. A unit of work is known by its name and by the digest of what it asks, so
an answer is never taken for another question's. Whoever has the file open has it alone: two runs of the same
work would buy it twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from marketplace.client.bundle import Bundle
from marketplace.client.placed import Placed
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS sent (
  id INTEGER PRIMARY KEY, unit TEXT NOT NULL, digest TEXT NOT NULL, state TEXT NOT NULL,
  node_id INTEGER NOT NULL, atoms INTEGER NOT NULL, placed TEXT NOT NULL, bundle TEXT);
CREATE INDEX IF NOT EXISTS sent_by_unit ON sent (unit, digest);
CREATE TABLE IF NOT EXISTS failed (
  unit TEXT NOT NULL, digest TEXT NOT NULL, problem TEXT NOT NULL, PRIMARY KEY (unit, digest));
"""


class SentState(StrEnum):
    """How an order stands.

    Open: its end is not known yet. Done: its answer is here. Free: it ended without cost. At risk: its
    receipt did not hold, so it is not paid, but its node may claim. Lost: paid, and its answer is gone.
    """

    OPEN = "open"
    DONE = "done"
    FREE = "free"
    AT_RISK = "at risk"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Name:
    """A unit of work: what it is called, and the digest of what it asks."""

    unit: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One order of a unit; `atoms` is what it cost, or may cost while that is not known."""

    id: int
    name: Name
    state: SentState
    node_id: int
    atoms: int
    placed: dict[str, Any]


class Workbook:
    """The file of one piece of work. Closing it, or dying, lets others open it."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it.

        Raises:
            BadRequest: another run has it open, or it is something else.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level None: transactions begin where this code says so, not where Python guesses.
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript("BEGIN EXCLUSIVE;" + _SCHEMA + "COMMIT;")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise _refused(path, error) from error
        path.chmod(0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def about(self, name: str) -> Any:
        """A fact about the whole work; None when it was never said."""
        row = self._db.execute("SELECT value FROM about WHERE name=?", (name,)).fetchone()
        return json.loads(row[0]) if row else None

    def say(self, facts: Mapping[str, Any]) -> None:
        """Keeps facts about the whole work."""
        for name, value in facts.items():
            self._db.execute(
                "INSERT INTO about VALUES (?,?) ON CONFLICT(name) DO UPDATE SET value=excluded.value",
                (name, json.dumps(value)),
            )

    def place(self, name: Name, placed: Placed) -> int:
        """Keeps an order that has not left yet; gives its number."""
        row = (
            name.unit,
            name.digest,
            SentState.OPEN,
            placed.session.node_id,
            placed.order.max_amount_atoms,
            json.dumps(placed.to_json()),
        )
        done = self._db.execute(
            "INSERT INTO sent (unit, digest, state, node_id, atoms, placed) VALUES (?,?,?,?,?,?)", row
        )
        self._db.execute("DELETE FROM failed WHERE unit=? AND digest=?", (name.unit, name.digest))
        return int(done.lastrowid or 0)

    def deliver(self, sent_id: int, bundle: Bundle) -> None:
        """Keeps an order's answer and proof; idempotent."""
        text = json.dumps(bundle.to_json(), ensure_ascii=False)
        self._db.execute(
            "UPDATE sent SET state=?, atoms=?, bundle=? WHERE id=?",
            (SentState.DONE, bundle.receipt.amount_atoms, text, sent_id),
        )

    def end(self, sent_id: int, state: SentState, atoms: int) -> None:
        """Ends an order that brought no answer; one that did stays as it is."""
        self._db.execute(
            "UPDATE sent SET state=?, atoms=? WHERE id=? AND bundle IS NULL", (state, atoms, sent_id)
        )

    def fail(self, name: Name, problem: Mapping[str, Any]) -> None:
        """Keeps why a unit has no answer; its next order takes it back."""
        self._db.execute(
            "INSERT INTO failed VALUES (?,?,?)"
            " ON CONFLICT(unit, digest) DO UPDATE SET problem=excluded.problem",
            (name.unit, name.digest, json.dumps(problem, ensure_ascii=False)),
        )

    def failure(self, name: Name) -> dict[str, Any] | None:
        """Why a unit has no answer; None when it did not fail."""
        row = self._db.execute(
            "SELECT problem FROM failed WHERE unit=? AND digest=?", (name.unit, name.digest)
        ).fetchone()
        return dict(json.loads(row[0])) if row else None

    def proof(self, name: Name) -> dict[str, Any] | None:
        """The bundle of a unit's answer, as JSON; None while it has none."""
        row = self._db.execute(
            "SELECT bundle FROM sent WHERE unit=? AND digest=? AND state=? ORDER BY id",
            (name.unit, name.digest, SentState.DONE),
        ).fetchone()
        return dict(json.loads(row[0])) if row else None

    def done(self) -> set[Name]:
        """Units that have their answer."""
        rows = self._db.execute("SELECT unit, digest FROM sent WHERE state=?", (SentState.DONE,))
        return {Name(row["unit"], row["digest"]) for row in rows}

    def standing(self) -> tuple[Name, ...]:
        """Units whose order has its answer, may yet have it, or was paid and has lost it."""
        rows = self._db.execute(
            "SELECT unit, digest FROM sent WHERE state IN (?,?,?) GROUP BY unit, digest ORDER BY min(id)",
            (SentState.DONE, SentState.OPEN, SentState.LOST),
        )
        return tuple(Name(row["unit"], row["digest"]) for row in rows)

    def sent(self, state: SentState | None = None, name: Name | None = None) -> list[Sent]:
        """Orders in the order they were placed."""
        rows = self._db.execute(
            "SELECT id, unit, digest, state, node_id, atoms, placed FROM sent"
            " WHERE (?1 IS NULL OR state=?1) AND (?2 IS NULL OR unit=?2) AND (?3 IS NULL OR digest=?3)"
            " ORDER BY id",
            (state, name and name.unit, name and name.digest),
        )
        return [_sent(row) for row in rows]

    def sent_as(self, order: bytes) -> Sent | None:
        """The order of these bytes."""
        rows = self._db.execute(
            "SELECT id, unit, digest, state, node_id, atoms, placed FROM sent"
            " WHERE json_extract(placed, '$.order.message')=?",
            (to_hex(order),),
        ).fetchall()
        return _sent(rows[0]) if rows else None

    def sessions(self) -> list[bytes]:
        """Sessions that anything was ordered in."""
        rows = self._db.execute("SELECT DISTINCT json_extract(placed, '$.session_id') FROM sent")
        return [from_hex(row[0], 32) for row in rows]

    def unanswered_atoms(self) -> int:
        """What orders without an answer were or may yet be charged."""
        row = self._db.execute("SELECT coalesce(sum(atoms), 0) FROM sent WHERE bundle IS NULL").fetchone()
        return int(row[0])

    def committed_atoms(self) -> int:
        """What was paid, and what may still have to be."""
        return int(self._db.execute("SELECT coalesce(sum(atoms), 0) FROM sent").fetchone()[0])

    def proofs(self) -> Iterator[tuple[Name, dict[str, Any]]]:
        """Every answer's bundle with its unit, in the order they were bought."""
        rows = self._db.execute(
            "SELECT unit, digest, bundle FROM sent WHERE state=? ORDER BY id", (SentState.DONE,)
        )
        for row in rows:
            yield Name(row["unit"], row["digest"]), dict(json.loads(row["bundle"]))


def _sent(row: sqlite3.Row) -> Sent:
    return Sent(
        id=row["id"],
        name=Name(row["unit"], row["digest"]),
        state=SentState(row["state"]),
        node_id=row["node_id"],
        atoms=row["atoms"],
        placed=json.loads(row["placed"]),
    )


def _refused(path: Path, error: sqlite3.DatabaseError) -> BadRequest:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"another run is at work on {path}",
            hint="Wait for it, or end it; then run the same command again.",
        )
    return BadRequest(
        ErrorCode.INVALID_REQUEST,
        f"{path} is no record of earlier work ({error})",
        hint="Name other results with --out, or move it away.",
    )

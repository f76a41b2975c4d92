"""What a key has promised, on disk: sessions, orders, how each ended, newest vouchers.

Amounts a key pays must never rest on another's word, so this journal, and not the gateway, counts them. It is
one SQLite file: processes that share it take sequence numbers without colliding, and a killed one loses none.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.messages import Open, Order

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS session (
  session_id TEXT PRIMARY KEY, key TEXT NOT NULL, node_id INTEGER NOT NULL, terms TEXT,
  deposited_atoms INTEGER NOT NULL, expires_at INTEGER NOT NULL, key_epoch INTEGER NOT NULL,
  signer TEXT NOT NULL, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS seat (
  session_id TEXT NOT NULL, seq INTEGER NOT NULL, max_atoms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL,
  state TEXT NOT NULL, amount_atoms INTEGER NOT NULL DEFAULT 0, digest BLOB, message BLOB, signature BLOB,
  job_id TEXT, PRIMARY KEY (session_id, seq));
CREATE TABLE IF NOT EXISTS voucher (
  session_id TEXT PRIMARY KEY, through_seq INTEGER NOT NULL, amount_atoms INTEGER NOT NULL,
  message BLOB NOT NULL, signature BLOB NOT NULL, taken INTEGER NOT NULL);
"""
_BUSY_SECONDS: Final = 10


class SessionUse(StrEnum):
    """Whether a session takes orders. A retired one never does again; its money returns at its expiry."""

    OPENING = "opening"
    OPEN = "open"
    RETIRED = "retired"


class SeatState(StrEnum):
    """How an order stands: not known yet, ended by a verified receipt, or ended without cost."""

    PENDING = "pending"
    RECEIPTED = "receipted"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session of our key; `signer` is its node's key, `terms` None where others opened it."""

    session_id: bytes
    key: str
    node_id: int
    terms: Open | None
    deposited_atoms: int
    expires_at: int
    key_epoch: int
    signer: str
    use: SessionUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One sequence number of a session and what became of it."""

    session_id: bytes
    seq: int
    max_atoms: int
    deadline_ms: int
    state: SeatState
    amount_atoms: int
    digest: bytes | None
    order: Order | None
    job_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldVoucher:
    """The newest voucher signed for a session; `taken` once the gateway has it."""

    session_id: bytes
    through_seq: int
    amount_atoms: int
    message: bytes
    signature: bytes
    taken: bool


class Journal:
    """Sessions, seats and vouchers of one buyer's keys; ":memory:" for a process's lifetime."""

    def __init__(self, path: Path | str) -> None:
        if path != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        # isolation_level None: transactions begin where this code says so, not where Python guesses.
        self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        if path != ":memory:":
            Path(path).chmod(0o600)

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def put_session(self, session: Session) -> None:
        """Adds a session, or renews what is known of it."""
        with self.writing() as db:
            db.execute(
                "INSERT INTO session VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT(session_id) DO UPDATE SET"
                " deposited_atoms=excluded.deposited_atoms, expires_at=excluded.expires_at,"
                " key_epoch=excluded.key_epoch, signer=excluded.signer, state=excluded.state",
                _session_row(session),
            )

    def session(self, session_id: bytes) -> Session | None:
        """A session by id."""
        rows = self.rows("SELECT * FROM session WHERE session_id=?", to_hex(session_id))
        return _session(rows[0]) if rows else None

    def sessions(self, key: str, node_id: int | None = None) -> list[Session]:
        """Sessions of a key, soonest to expire first."""
        rows = self.rows("SELECT * FROM session WHERE key=? ORDER BY expires_at, session_id", key)
        return [s for s in map(_session, rows) if node_id in (None, s.node_id)]

    def use(self, session_id: bytes, use: SessionUse) -> None:
        """Changes whether a session takes orders."""
        with self.writing() as db:
            db.execute("UPDATE session SET state=? WHERE session_id=?", (use, to_hex(session_id)))

    def take_seat(self, session_id: bytes, max_atoms: int, deadline_ms: int) -> int | None:
        """The next sequence number with `max_atoms` set aside; None when the session holds too little."""
        name = to_hex(session_id)
        with self.writing() as db:
            held = db.execute("SELECT deposited_atoms FROM session WHERE session_id=?", (name,)).fetchone()
            if held is None or held[0] - self._promised(name) < max_atoms:
                return None
            last = db.execute("SELECT coalesce(max(seq), 0) FROM seat WHERE session_id=?", (name,)).fetchone()
            db.execute(
                "INSERT INTO seat (session_id, seq, max_atoms, deadline_ms, state) VALUES (?,?,?,?,?)",
                (name, last[0] + 1, max_atoms, deadline_ms, SeatState.PENDING),
            )
            return int(last[0]) + 1

    def write_order(self, order: Order, signature: bytes) -> None:
        """Keeps the signed order of a seat before it leaves."""
        with self.writing() as db:
            db.execute(
                "UPDATE seat SET message=?, signature=? WHERE session_id=? AND seq=?",
                (order.encode(), signature, to_hex(order.session_id), order.seq),
            )

    def name_job(self, session_id: bytes, seq: int, job_id: str) -> None:
        """Keeps the gateway's name of a seat's job."""
        with self.writing() as db:
            db.execute(
                "UPDATE seat SET job_id=? WHERE session_id=? AND seq=?", (job_id, to_hex(session_id), seq)
            )

    def end_seat(
        self, session_id: bytes, seq: int, *, amount_atoms: int = 0, digest: bytes | None = None
    ) -> None:
        """Ends a seat with a verified receipt's amount and digest, or void; an ended amount never changes."""
        state = SeatState.VOID if digest is None else SeatState.RECEIPTED
        with self.writing() as db:
            db.execute(
                "UPDATE seat SET state=?, amount_atoms=?, digest=?"
                " WHERE session_id=? AND seq=? AND digest IS NULL",
                (state, amount_atoms, digest, to_hex(session_id), seq),
            )

    def seats(self, session_id: bytes) -> list[Seat]:
        """All seats of a session in order."""
        return [
            _seat(r)
            for r in self.rows("SELECT * FROM seat WHERE session_id=? ORDER BY seq", to_hex(session_id))
        ]

    def left_atoms(self, session_id: bytes) -> int:
        """What a session can still promise: deposit less amounts owed and set aside."""
        session = self.session(session_id)
        with self._lock:
            return session.deposited_atoms - self._promised(to_hex(session_id)) if session else 0

    def put_voucher(self, voucher: HeldVoucher) -> None:
        """Keeps a voucher unless a newer one is there; run before it leaves."""
        with self.writing() as db:
            db.execute(
                "INSERT INTO voucher VALUES (?,?,?,?,?,?) ON CONFLICT(session_id) DO UPDATE SET"
                " through_seq=excluded.through_seq, amount_atoms=excluded.amount_atoms,"
                " message=excluded.message, signature=excluded.signature, taken=excluded.taken"
                " WHERE excluded.through_seq >= voucher.through_seq"
                " AND excluded.amount_atoms >= voucher.amount_atoms",
                (
                    to_hex(voucher.session_id),
                    voucher.through_seq,
                    voucher.amount_atoms,
                    voucher.message,
                    voucher.signature,
                    int(voucher.taken),
                ),
            )

    def mark_taken(self, voucher: HeldVoucher) -> None:
        """Notes that the gateway has this very voucher."""
        with self.writing() as db:
            db.execute(
                "UPDATE voucher SET taken=1 WHERE session_id=? AND message=?",
                (to_hex(voucher.session_id), voucher.message),
            )

    def voucher(self, session_id: bytes) -> HeldVoucher | None:
        """The newest voucher of a session."""
        rows = self.rows("SELECT * FROM voucher WHERE session_id=?", to_hex(session_id))
        return _voucher(rows[0]) if rows else None

    def _promised(self, name: str) -> int:
        row = self._db.execute(
            "SELECT coalesce(sum(CASE state WHEN 'pending' THEN max_atoms ELSE amount_atoms END), 0)"
            " FROM seat WHERE session_id=?",
            (name,),
        ).fetchone()
        return int(row[0])

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction, which no other process interrupts; undone by an error."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Rows of one query."""
        with self._lock:
            return self._db.execute(query, values).fetchall()


def _session_row(session: Session) -> tuple[Any, ...]:
    return (
        to_hex(session.session_id),
        session.key,
        session.node_id,
        json.dumps(session.terms.to_json()) if session.terms else None,
        session.deposited_atoms,
        session.expires_at,
        session.key_epoch,
        session.signer,
        session.use,
    )


def _session(row: sqlite3.Row) -> Session:
    return Session(
        session_id=from_hex(row["session_id"], 32),
        key=row["key"],
        node_id=row["node_id"],
        terms=Open.from_json(json.loads(row["terms"])) if row["terms"] else None,
        deposited_atoms=row["deposited_atoms"],
        expires_at=row["expires_at"],
        key_epoch=row["key_epoch"],
        signer=row["signer"],
        use=SessionUse(row["state"]),
    )


def _seat(row: sqlite3.Row) -> Seat:
    return Seat(
        session_id=from_hex(row["session_id"], 32),
        seq=row["seq"],
        max_atoms=row["max_atoms"],
        deadline_ms=row["deadline_ms"],
        state=SeatState(row["state"]),
        amount_atoms=row["amount_atoms"],
        digest=row["digest"],
        order=Order.decode(row["message"]) if row["message"] else None,
        job_id=row["job_id"],
    )


def _voucher(row: sqlite3.Row) -> HeldVoucher:
    return HeldVoucher(
        session_id=from_hex(row["session_id"], 32),
        through_seq=row["through_seq"],
        amount_atoms=row["amount_atoms"],
        message=row["message"],
        signature=row["signature"],
        taken=bool(row["taken"]),
    )

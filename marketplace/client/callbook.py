"""Which calls a key has made, and which orders each became: one call is charged once, whatever retries.

It lives in the journal's file. A process that was killed finds the order of a call here, and sends that order
again instead of signing another. A budget counts what all orders under its name cost, or may yet cost.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from marketplace.client.journal import Journal
from marketplace.client.placed import Placed
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace
from marketplace.protocol.hexes import keccak, to_hex

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS call (
  call_id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, name TEXT, fingerprint TEXT NOT NULL,
  begun_ms INTEGER NOT NULL, state TEXT NOT NULL, UNIQUE (key, name));
CREATE INDEX IF NOT EXISTS call_begun ON call (begun_ms);
CREATE TABLE IF NOT EXISTS placed (
  call_id INTEGER NOT NULL, attempt INTEGER NOT NULL, key TEXT NOT NULL, budget TEXT,
  session_id TEXT NOT NULL, seq INTEGER NOT NULL, given_up INTEGER NOT NULL DEFAULT 0, placed TEXT,
  PRIMARY KEY (call_id, attempt));
CREATE INDEX IF NOT EXISTS placed_budget ON placed (key, budget);
"""
_STANDING: Final = "SELECT placed FROM placed WHERE call_id=? AND given_up=0 ORDER BY attempt DESC LIMIT 1"
_REMEMBERED_MS: Final = 24 * 3_600_000
# A client that only counts its retries does not mean the same call of an hour ago.
_REPEAT_MS: Final = 600_000


class CallState(StrEnum):
    """How a call stands: under way or not known, answered, or ended without an answer and without cost."""

    OPEN = "open"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """What makes two calls one.

    Attributes:
        name: the caller's own key of this call; "" where it gives none.
        fingerprint: digest of the call as it was asked.
        repeated: the caller says that it has sent this before.
    """

    fingerprint: str
    name: str = ""
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Most that calls under one name may cost together, for as long as the journal is kept."""

    name: str
    limit_atoms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """How a budget stands. `spent_atoms` has what orders may yet cost whose end is not known."""

    limit_atoms: int | None
    spent_atoms: int

    @property
    def left_atoms(self) -> int | None:
        """What is left; None without a limit."""
        return None if self.limit_atoms is None else max(0, self.limit_atoms - self.spent_atoms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call; `again` when it was known before."""

    call_id: int
    state: CallState
    again: bool


class CallBook:
    """Calls and orders of one key, in its journal."""

    def __init__(self, journal: Journal, key: str) -> None:
        self._journal, self._key = journal, key
        with journal.writing() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)

    def begin(self, once: Once, now_ms: int) -> Call:
        """The call that this one is, known before or not. One that failed begins anew.

        Raises:
            BadRequest: its name stands for another call.
        """
        with self._journal.writing() as db:
            self._forget(db, now_ms - _REMEMBERED_MS)
            row = self._known(db, once, now_ms)
            if row is None:
                name = _digest(once.name) if once.name else None
                made = db.execute(
                    "INSERT INTO call (key, name, fingerprint, begun_ms, state) VALUES (?,?,?,?,?)",
                    (self._key, name, once.fingerprint, now_ms, CallState.OPEN),
                )
                return Call(call_id=int(made.lastrowid or 0), state=CallState.OPEN, again=False)
            if row["fingerprint"] != once.fingerprint:
                raise BadRequest(ErrorCode.IDEMPOTENCY_MISMATCH)
            failed = row["state"] == CallState.FAILED
            if failed:
                _mark(db, row["call_id"], CallState.OPEN)
            state = CallState.OPEN if failed else CallState(row["state"])
            return Call(call_id=row["call_id"], state=state, again=not failed)

    def end(self, call: Call, state: CallState) -> None:
        """Keeps how a call ended; what was delivered stays so."""
        with self._journal.writing() as db:
            _mark(db, call.call_id, state)

    def place(self, call: Call, placed: Placed, budget: Budget | None) -> None:
        """Keeps an order and all that is sent with it, before it leaves.

        Raises:
            LostRace: another process has an order for this call; this one must not leave.
            BadRequest: the budget does not allow it; the same.
        """
        order, text = placed.order, json.dumps(placed.to_json())
        session_id = to_hex(order.session_id)
        with self._journal.writing() as db:
            if budget is not None:
                check_budget(budget, self._spent(db, budget.name), placed.ceiling_atoms)
            if db.execute(_STANDING, (call.call_id,)).fetchone() is not None:
                raise LostRace(ErrorCode.ORDER_REPLAYED, "this call has an order already")
            made = db.execute("SELECT count(*) FROM placed WHERE call_id=?", (call.call_id,)).fetchone()[0]
            db.execute(
                "INSERT INTO placed (call_id, attempt, key, budget, session_id, seq, placed)"
                " VALUES (?,?,?,?,?,?,?)",
                (
                    *(call.call_id, made + 1, self._key, budget.name if budget else None),
                    *(session_id, order.seq, text),
                ),
            )
            db.execute(
                "UPDATE seat SET message=?, signature=? WHERE session_id=? AND seq=?",
                (order.encode(), placed.signature, session_id, order.seq),
            )

    def standing(self, call: Call) -> Placed | None:
        """The order of a call that was not given up; None where it has none, or it is forgotten."""
        rows = self._journal.rows(_STANDING, call.call_id)
        text = rows[0]["placed"] if rows else None
        return None if text is None else Placed.from_json(json.loads(text), self._journal)

    def give_up(self, placed: Placed) -> bool:
        """Notes that an order came to nothing: its call may have another. False for one that is owed for."""
        where = (to_hex(placed.order.session_id), placed.order.seq)
        with self._journal.writing() as db:
            owed = db.execute("SELECT amount_atoms FROM seat WHERE session_id=? AND seq=?", where).fetchone()
            if owed is not None and owed[0]:
                return False
            db.execute("UPDATE placed SET given_up=1 WHERE session_id=? AND seq=?", where)
        return True

    def unfinished(self) -> list[Call]:
        """Calls whose order was sent and whose end is not known."""
        rows = self._journal.rows(
            "SELECT DISTINCT call_id FROM call JOIN placed USING (call_id)"
            " WHERE call.key=? AND state=? AND given_up=0 ORDER BY call_id",
            self._key,
            CallState.OPEN,
        )
        return [Call(call_id=row["call_id"], state=CallState.OPEN, again=True) for row in rows]

    def spent_atoms(self, budget: str) -> int:
        """What the orders under a budget cost, and may yet cost where their end is not known."""
        with self._journal.writing() as db:
            return self._spent(db, budget)

    def spent_lately(self, budget: str, since_ms: int) -> list[tuple[int, int]]:
        """(Unix ms, atoms) of calls of the last day under a budget, begun since then, whose cost is known."""
        rows = self._journal.rows(
            "SELECT begun_ms, amount_atoms FROM placed JOIN call USING (call_id)"
            " JOIN seat USING (session_id, seq)"
            " WHERE placed.key=? AND budget=? AND begun_ms>=? AND seat.state<>'pending' AND given_up=0",
            *(self._key, budget, since_ms),
        )
        return [(row["begun_ms"], row["amount_atoms"]) for row in rows]

    def _known(self, db: sqlite3.Connection, once: Once, now_ms: int) -> sqlite3.Row | None:
        if once.name:
            found = db.execute("SELECT * FROM call WHERE key=? AND name=?", (self._key, _digest(once.name)))
        elif once.repeated:
            found = db.execute(
                "SELECT * FROM call WHERE key=? AND fingerprint=? AND begun_ms>=? AND state<>?"
                " ORDER BY call_id DESC LIMIT 1",
                (self._key, once.fingerprint, now_ms - _REPEAT_MS, CallState.FAILED),
            )
        else:
            return None
        row: sqlite3.Row | None = found.fetchone()
        return row

    def _spent(self, db: sqlite3.Connection, budget: str) -> int:
        row = db.execute(
            "SELECT coalesce(sum(CASE state WHEN 'pending' THEN max_atoms ELSE amount_atoms END), 0)"
            " FROM placed JOIN seat USING (session_id, seq) WHERE key=? AND budget=?",
            (self._key, budget),
        ).fetchone()
        return int(row[0])

    def _forget(self, db: sqlite3.Connection, before_ms: int) -> None:
        """What was asked a day ago is not kept; what it cost is."""
        gone = db.execute("DELETE FROM call WHERE begun_ms<?", (before_ms,)).rowcount
        if gone:
            db.execute(
                "UPDATE placed SET placed=NULL"
                " WHERE placed IS NOT NULL AND call_id NOT IN (SELECT call_id FROM call)"
            )


def check_budget(budget: Budget, spent_atoms: int, need_atoms: int) -> None:
    """Refuses what could cost more than is left.

    Raises:
        BadRequest: it could.
    """
    left = max(0, budget.limit_atoms - spent_atoms)
    if need_atoms > left:
        raise BadRequest(
            ErrorCode.BUDGET_EXCEEDED,
            f"this may cost {need_atoms} atoms, and the budget leaves {left} of {budget.limit_atoms}",
            need_atoms=need_atoms,
            left_atoms=left,
            budget_atoms=budget.limit_atoms,
            hint="Lower max_tokens, or raise the budget.",
        )


def _digest(name: str) -> str:
    return keccak(name.encode()).hex()


def _mark(db: sqlite3.Connection, call_id: int, state: CallState) -> None:
    db.execute("UPDATE call SET state=? WHERE call_id=? AND state<>?", (state, call_id, CallState.DELIVERED))

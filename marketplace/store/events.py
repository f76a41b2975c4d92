"""The chain as this market has seen it: blocks of the reorganisation window, and every event."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam, delete, func, insert
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from marketplace.protocol.errors import ChainTrouble, ErrorCode
from marketplace.store.plain import run
from marketplace.store.tables import BlockRow, ChainEventRow

SETTLED: Final = ("VoucherSettled", "ClaimFinalised")
# All that decides which of a session's orders are paid.
PAYING: Final = (*SETTLED, "Claimed", "ClaimReplaced", "ClaimHeld", "ClaimResolved")
_MAX_VALUES: Final = 500  # in one IN list
_KNOWN: Final = select_columns(col(BlockRow.number), col(BlockRow.hash), col(BlockRow.timestamp)).order_by(
    col(BlockRow.number)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockFact:
    """A block the follower has folded."""

    number: int
    hash: str
    timestamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFact:
    """One event of our contracts, at one place in the chain.

    Attributes:
        part: position in a log that tells several things at once. Whoever fills a batch decides how many
            those are, so it is a number of its own: no factor on `log_index` leaves room for all of them.
        subject: what it is about: a session id, an address, or `node:7`.
        args: Solidity names to integers, `0x` hex, checksummed addresses and text.
    """

    block_number: int
    log_index: int
    block_hash: str
    tx_hash: str
    contract: str
    name: str
    subject: str
    args: dict[str, Any]
    part: int = 0

    @property
    def place(self) -> tuple[int, int, int]:
        """Order in the chain."""
        return self.block_number, self.log_index, self.part


def known_blocks(db: Session) -> list[BlockFact]:
    """Stored blocks, ascending; the last is the follower's cursor."""
    rows = run(db, _KNOWN)
    return [BlockFact(number=number, hash=found, timestamp=at) for number, found, at in rows]


def cursor(db: Session) -> BlockFact | None:
    """Newest folded block; None before the first."""
    row = db.exec(select(BlockRow).order_by(col(BlockRow.number).desc()).limit(1)).first()
    return BlockFact(number=row.number, hash=row.hash, timestamp=row.timestamp) if row else None


def put_blocks(db: Session, blocks: Iterable[BlockFact], *, keep: int) -> None:
    """Adds blocks that are not there yet and forgets all but the newest `keep` numbers."""
    known = set(db.exec(select(BlockRow.number)).all())
    fresh = [block for block in blocks if block.number not in known]
    db.add_all([BlockRow(number=b.number, hash=b.hash, timestamp=b.timestamp) for b in fresh])
    newest = max((*known, *(block.number for block in fresh)), default=0)
    db.flush()
    db.execute(delete(BlockRow).where(col(BlockRow.number) <= newest - keep))


def add_events(db: Session, events: Sequence[EventFact]) -> list[EventFact]:
    """Stores the events that are not there yet, and returns those.

    Raises:
        ChainTrouble: another event is stored at the same place; the chain moved while it was read.
    """
    if not events:
        return []
    numbers = [event.block_number for event in events]
    place = (ChainEventRow.block_number, ChainEventRow.log_index, ChainEventRow.part)
    inside = col(ChainEventRow.block_number).between(min(numbers), max(numbers))
    found = db.exec(select(*place, ChainEventRow.block_hash).where(inside))
    there = {(number, index, part): seen for number, index, part, seen in found}
    if any(there.get(event.place, event.block_hash) != event.block_hash for event in events):
        raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "the chain moved while it was read; read again")
    fresh = [event for event in events if event.place not in there]
    if fresh:
        db.execute(insert(ChainEventRow), [_values(event) for event in fresh])
    return fresh


def rollback(db: Session, to_block: int) -> list[EventFact]:
    """Deletes blocks and events above `to_block`; returns the events, in order."""
    db.execute(delete(BlockRow).where(col(BlockRow.number) > to_block))
    return cut(db, to_block + 1)


def cut(db: Session, first: int, last: int | None = None) -> list[EventFact]:
    """Deletes the events of blocks `first` to `last` (both included); returns them, in order."""
    inside = col(ChainEventRow.block_number) >= first
    if last is not None:
        inside &= col(ChainEventRow.block_number) <= last
    removed = _select(db, inside)
    db.execute(delete(ChainEventRow).where(inside))
    return removed


def all_events(db: Session) -> list[EventFact]:
    """Everything, in order."""
    return _select(db)


def events_about(db: Session, subjects: Collection[str]) -> list[EventFact]:
    """Events of these subjects, in order."""
    found = itertools.chain.from_iterable(
        _select(db, col(ChainEventRow.subject).in_(part)) for part in batches(sorted(subjects))
    )
    return sorted(found, key=lambda event: event.place)


def payments(db: Session, session_id: str) -> list[EventFact]:
    """The events of `PAYING` of a session, in order."""
    return _select(db, col(ChainEventRow.subject) == session_id, col(ChainEventRow.name).in_(PAYING))


def settled_through(db: Session, session_id: str, below_seq: int) -> int:
    """The highest seq below another one that the chain has settled a session through; 0 when none."""
    settled = (event for event in payments(db, session_id) if event.name in SETTLED)
    return max((seq for event in settled if (seq := event.args["throughSeq"]) < below_seq), default=0)


def block_of(db: Session, session_id: str, tx_hash: str) -> int | None:
    """Block in which a transaction did something to a session; None when the chain does not have it."""
    this = (col(ChainEventRow.subject) == session_id) & (col(ChainEventRow.tx_hash) == tx_hash)
    return db.exec(select(ChainEventRow.block_number).where(this)).first()


def is_revoked(db: Session, buyer: str, key: str) -> bool:
    """Whether the last a buyer said of a key was to revoke it."""
    told = {"buyer": buyer, "key": f'%"{key}"%'}
    return run(db, _said_of_key(), told).scalars().first() == "KeyRevoked"


def count_events(db: Session) -> int:
    """How many events are stored."""
    return db.exec(select(func.count()).select_from(ChainEventRow)).one()


def batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """Slices short enough for one IN list."""
    return (values[at : at + _MAX_VALUES] for at in range(0, len(values), _MAX_VALUES))


@cache
def _said_of_key() -> Select[str]:
    """Built once: this runs for every order."""
    said = (
        col(ChainEventRow.subject) == bindparam("buyer"),
        col(ChainEventRow.name).in_(("KeySet", "KeyRevoked")),
        # An address has no character that means anything here.
        col(ChainEventRow.args).like(bindparam("key")),
    )
    newest = (col(ChainEventRow.block_number).desc(), col(ChainEventRow.log_index).desc())
    return select_columns(col(ChainEventRow.name)).where(*said).order_by(*newest).limit(1)


def _select(db: Session, *where: ColumnElement[bool]) -> list[EventFact]:
    order = (col(ChainEventRow.block_number), col(ChainEventRow.log_index), col(ChainEventRow.part))
    return [_fact(row) for row in db.exec(select(ChainEventRow).where(*where).order_by(*order))]


def _fact(row: ChainEventRow) -> EventFact:
    return EventFact(
        block_number=row.block_number,
        log_index=row.log_index,
        block_hash=row.block_hash,
        tx_hash=row.tx_hash,
        contract=row.contract,
        name=row.name,
        subject=row.subject,
        args=json.loads(row.args),
        part=row.part,
    )


def _values(event: EventFact) -> dict[str, Any]:
    return {
        "block_number": event.block_number,
        "log_index": event.log_index,
        "part": event.part,
        "block_hash": event.block_hash,
        "tx_hash": event.tx_hash,
        "contract": event.contract,
        "name": event.name,
        "subject": event.subject,
        "args": json.dumps(event.args),
    }

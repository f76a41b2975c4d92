"""The gateway's journal of signed transactions."""

from __future__ import annotations

from typing import Final

from sqlalchemy import func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from marketplace.protocol.errors import Broken, ErrorCode, LostRace
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.transactions import TxRecord, TxState
from marketplace.store.engine import Store
from marketplace.store.tables import TransactionRow

_OPEN: Final = (TxState.SIGNED.value, TxState.MINED.value)


class StoreJournal:
    """`TxJournal` over the market's database: each call is one committed transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def find(self, intent: str) -> TxRecord | None:
        """The record of an intent."""
        with self._store.reading() as db:
            return transaction_of(db, intent)

    def add(self, record: TxRecord) -> None:
        """Persists a fresh record; raises `LostRace` when intent or (sender, nonce) is taken."""
        try:
            with self._store.transaction() as db:
                db.add(_row(record))
        except IntegrityError as error:
            raise LostRace(
                ErrorCode.INTERNAL,
                f"{record.intent} or nonce {record.nonce} of {record.sender} is taken",
                intent=record.intent,
                nonce=record.nonce,
            ) from error

    def mark(
        self, intent: str, state: TxState, *, block_number: int | None, block_hash: bytes | None
    ) -> None:
        """Moves a record on, or back after a reorganisation."""
        seen = to_hex(block_hash) if block_hash is not None else None
        moved = update(TransactionRow).where(col(TransactionRow.intent) == intent)
        with self._store.transaction() as db:
            changed = db.execute(
                moved.values(state=state.value, block_number=block_number, block_hash=seen).returning(
                    col(TransactionRow.intent)
                )
            ).all()
        if not changed:
            raise Broken(ErrorCode.INTERNAL, f"no transaction was signed for {intent}", intent=intent)

    def pending(self, sender: str) -> list[TxRecord]:
        """Records of a sender that are signed or mined but not confirmed, by nonce."""
        mine = (col(TransactionRow.sender) == sender) & col(TransactionRow.state).in_(_OPEN)
        with self._store.reading() as db:
            rows = db.exec(select(TransactionRow).where(mine).order_by(col(TransactionRow.nonce))).all()
        return [_record(row) for row in rows]

    def next_nonce(self, sender: str) -> int:
        """One above the highest nonce ever signed here; 0 when none was."""
        with self._store.reading() as db:
            highest = db.exec(
                select(func.max(TransactionRow.nonce)).where(col(TransactionRow.sender) == sender)
            ).one()
        return 0 if highest is None else highest + 1


def transaction_of(db: Session, intent: str) -> TxRecord | None:
    """The signed transaction of an intent, inside a transaction of the caller's."""
    row = db.get(TransactionRow, intent)
    return _record(row) if row else None


def _row(record: TxRecord) -> TransactionRow:
    return TransactionRow(
        intent=record.intent,
        sender=record.sender,
        nonce=record.nonce,
        raw=record.raw,
        tx_hash=to_hex(record.tx_hash),
        state=record.state.value,
        created_at_ms=record.created_at_ms,
        block_number=record.block_number,
        block_hash=to_hex(record.block_hash) if record.block_hash is not None else None,
        trace_ids=record.trace_ids,
    )


def _record(row: TransactionRow) -> TxRecord:
    return TxRecord(
        intent=row.intent,
        sender=row.sender,
        nonce=row.nonce,
        raw=row.raw,
        tx_hash=from_hex(row.tx_hash, 32),
        state=TxState(row.state),
        created_at_ms=row.created_at_ms,
        block_number=row.block_number,
        block_hash=from_hex(row.block_hash, 32) if row.block_hash is not None else None,
        trace_ids=row.trace_ids,
    )

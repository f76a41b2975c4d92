"""The newest voucher of each session; amount and seq never fall."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam
from sqlmodel import Session, col, select, update

from marketplace.protocol.merkle import Frontier
from marketplace.store.plain import run, table_of
from marketplace.store.tables import VoucherRow

_WORD: Final = 32
_TABLE: Final = table_of(VoucherRow)
_MARK_TAKEN: Final = (
    update(_TABLE)
    .where(_TABLE.c.session_id == bindparam("of"), _TABLE.c.through_seq == bindparam("through"))
    .values(taken=bindparam("taken_now"), problem=bindparam("why"))
)


def find(tx: Session, session_id: str) -> VoucherRow | None:
    """A session's newest voucher."""
    return tx.get(VoucherRow, session_id)


def put(tx: Session, row: VoucherRow) -> None:
    """Replaces a session's voucher by a newer one."""
    tx.merge(row)


def frontier(row: VoucherRow | None) -> Frontier:
    """Tree of the receipts a voucher covers; the empty one for none."""
    if row is None:
        return Frontier()
    peaks = tuple(row.peaks[i : i + _WORD] for i in range(0, len(row.peaks), _WORD))
    return Frontier(row.leaves, peaks)


def mark_taken(tx: Session, session_id: str, through_seq: int, problem: str | None) -> None:
    """The node answered for the voucher through this seq; an answer for an older one changes nothing."""
    told = {"of": session_id, "through": through_seq, "taken_now": problem is None, "why": problem}
    run(tx, _MARK_TAKEN, told)


def untaken(tx: Session, node_id: int) -> list[VoucherRow]:
    """Vouchers a node has not on disk yet."""
    query = select(VoucherRow).where(VoucherRow.node_id == node_id, col(VoucherRow.taken).is_(False))
    return list(tx.exec(query))

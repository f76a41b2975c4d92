"""The newest voucher of each session, and the tree of receipts it stands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from threading import Lock

from sqlalchemy import update
from sqlmodel import Field, Session, col, select

from marketplace.protocol.merkle import Frontier
from worker.ledger.base import Database, Table, atoms, big, blob
from worker.ledger.orders import UNFINISHED, OrderRow
from worker.ledger.receipts import HeldReceipt, ReceiptRow, held_receipt

_WORD = 32


class VoucherRow(Table, table=True):
    """A session's newest voucher; `peaks` and `leaves` are the receipt tree through its seq."""

    __tablename__ = "voucher"
    session_id: bytes = Field(sa_column=blob(primary_key=True))
    key: str
    message: bytes = Field(sa_column=blob())
    signature: bytes = Field(sa_column=blob())
    through_seq: int = Field(sa_column=big())
    amount_atoms: int = Field(sa_column=atoms())
    leaves: int = Field(sa_column=big())
    peaks: bytes = Field(sa_column=blob())
    owed_atoms: int = Field(sa_column=atoms())
    held_since_ms: int = Field(sa_column=big())
    trace_ids: str = ""
    settled: bool = Field(default=False, index=True)
    retry_at_ms: int = Field(default=0, sa_column=big())
    skipped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldVoucher:
    """A stored voucher.

    Attributes:
        owed_atoms: sum of the receipts in its tree; `amount_atoms` is at least that.
        held_since_ms: since when part of it waits to be settled.
        trace_ids: traces of the jobs it pays since the last settlement, comma-separated.
        settled: nothing of it can be settled any more: all paid, or given up (`skipped` says why).
        retry_at_ms: not before this, after the chain skipped it.
    """

    session_id: bytes
    key: str
    message: bytes
    signature: bytes
    through_seq: int
    amount_atoms: int
    leaves: int
    peaks: bytes
    owed_atoms: int
    held_since_ms: int
    trace_ids: str = ""
    settled: bool = False
    retry_at_ms: int = 0
    skipped: str = ""

    @property
    def tree(self) -> Frontier:
        """Receipts through `through_seq`."""
        return Frontier(self.leaves, _split(self.peaks))


@dataclass(frozen=True, slots=True, kw_only=True)
class VoucherFacts:
    """What the ledger knows when a voucher through some seq arrives.

    Attributes:
        before: the voucher it would replace.
        receipts: own receipts after `before` up to the new seq, by seq, without waived ones.
        unfinished: lowest seq of an order up to there that has no receipt yet.
    """

    before: HeldVoucher | None
    receipts: Sequence[HeldReceipt]
    unfinished: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VoucherVerdict:
    """An accepted voucher's tree of receipts and their sum, and whether it changes anything."""

    tree: Frontier
    owed_atoms: int
    replaces: bool


class Vouchers:
    """Vouchers by session."""

    def __init__(self, database: Database, turn: Lock) -> None:
        self._database = database
        self._turn = turn

    def get(self, session_id: bytes) -> HeldVoucher | None:
        """The newest voucher, or None."""
        with self._database.read() as session:
            row = session.get(VoucherRow, session_id)
            return _held(row) if row else None

    def take(self, voucher: HeldVoucher, judge: Callable[[VoucherFacts], VoucherVerdict]) -> bool:
        """Stores a voucher that `judge` accepts; True when it replaced an older one.

        `voucher` arrives without its tree; the verdict brings it. Receipts up to its seq stop being open.

        Raises:
            BadRequest: as `judge` decides; nothing is stored.
        """
        with self._turn, self._database.write() as session:
            verdict = judge(_facts(session, voucher.session_id, voucher.through_seq))
            if verdict.replaces:
                _replace(session, voucher, verdict)
            return verdict.replaces

    def unsettled(self) -> list[HeldVoucher]:
        """Vouchers of which something may still be settled, oldest first."""
        query = (
            select(VoucherRow)
            .where(col(VoucherRow.settled).is_(False))
            .order_by(col(VoucherRow.held_since_ms))
        )
        with self._database.read() as session:
            return [_held(row) for row in session.exec(query)]

    def paid(self, session_id: bytes, *, amount_atoms: int, through_seq: int, now_ms: int) -> None:
        """Notes what the chain has paid; a newer voucher than that stays to be settled from `now_ms` on."""
        with self._database.write() as session:
            row = session.get(VoucherRow, session_id)
            if row is None or row.settled:
                return
            row.retry_at_ms, row.skipped, row.held_since_ms = 0, "", now_ms
            row.settled = row.amount_atoms <= amount_atoms and row.through_seq <= through_seq
            if row.settled:
                row.trace_ids = ""
            session.add(row)

    def skip(self, session_id: bytes, reason: str, *, retry_at_ms: int | None) -> None:
        """Notes that the chain passed a voucher over: try again later, or (None) give it up."""
        with self._database.write() as session:
            row = session.get(VoucherRow, session_id)
            if row is None:
                return
            row.skipped = reason
            row.settled = retry_at_ms is None
            row.retry_at_ms = retry_at_ms or 0
            session.add(row)

    def all(self) -> list[HeldVoucher]:
        """Every session's newest voucher."""
        with self._database.read() as session:
            return [_held(row) for row in session.exec(select(VoucherRow))]


def _facts(session: Session, session_id: bytes, through_seq: int) -> VoucherFacts:
    row = session.get(VoucherRow, session_id)
    after = row.through_seq if row else 0
    receipts = (
        select(ReceiptRow)
        .where(
            ReceiptRow.session_id == session_id,
            ReceiptRow.seq > after,
            ReceiptRow.seq <= through_seq,
            col(ReceiptRow.waived).is_(False),
        )
        .order_by(col(ReceiptRow.seq))
    )
    unfinished = (
        select(OrderRow.seq)
        .where(
            OrderRow.session_id == session_id,
            OrderRow.seq <= through_seq,
            col(OrderRow.state).in_(UNFINISHED),
        )
        .order_by(col(OrderRow.seq))
    )
    return VoucherFacts(
        before=_held(row) if row else None,
        receipts=[held_receipt(r) for r in session.exec(receipts)],
        unfinished=session.exec(unfinished).first(),
    )


def _replace(session: Session, voucher: HeldVoucher, verdict: VoucherVerdict) -> None:
    row = session.get(VoucherRow, voucher.session_id)
    fresh = asdict(voucher) | {
        "leaves": verdict.tree.count,
        "peaks": b"".join(verdict.tree.peaks),
        "owed_atoms": verdict.owed_atoms,
    }
    if row is not None and not row.settled:
        fresh["held_since_ms"] = row.held_since_ms
        fresh["trace_ids"] = ",".join(t for t in (row.trace_ids, voucher.trace_ids) if t)
    session.merge(VoucherRow(**fresh))
    covered = (
        update(ReceiptRow)
        .where(
            col(ReceiptRow.session_id) == voucher.session_id,
            col(ReceiptRow.seq) <= voucher.through_seq,
            col(ReceiptRow.open).is_(True),
        )
        .values(open=False)
    )
    session.exec(covered)


def _held(row: VoucherRow) -> HeldVoucher:
    return HeldVoucher(**row.model_dump())


def _split(peaks: bytes) -> tuple[bytes, ...]:
    return tuple(peaks[i : i + _WORD] for i in range(0, len(peaks), _WORD))

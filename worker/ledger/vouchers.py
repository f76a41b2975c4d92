"""The newest voucher of each session, and the tree of receipts it stands on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from threading import Lock
from typing import Final

from sqlmodel import Field, col, select

from marketplace.protocol.merkle import Frontier
from worker.ledger.base import Database, Plain, Table, atoms, big, blob
from worker.ledger.orders import UNFINISHED

_WORD: Final = 32
_VOUCHER: Final = "SELECT * FROM voucher WHERE session_id = ?"
_ENDED: Final = (
    "SELECT digest, amount_atoms FROM receipt"
    " WHERE session_id = ? AND seq > ? AND seq <= ? AND waived = ? ORDER BY seq"
)
_UNFINISHED: Final = "SELECT MIN(seq) FROM job_order WHERE session_id = ? AND seq <= ? AND state IN (?, ?)"
# In the order of `HeldVoucher`.
_PUT: Final = (
    "INSERT INTO voucher (session_id, key, message, signature, through_seq, amount_atoms, leaves, peaks,"
    " owed_atoms, held_since_ms, trace_ids, settled, retry_at_ms, skipped)"
)
_INSTEAD: Final = (
    "ON CONFLICT (session_id) DO UPDATE SET key = excluded.key, message = excluded.message,"
    " signature = excluded.signature, through_seq = excluded.through_seq,"
    " amount_atoms = excluded.amount_atoms, leaves = excluded.leaves, peaks = excluded.peaks,"
    " owed_atoms = excluded.owed_atoms, held_since_ms = excluded.held_since_ms,"
    " trace_ids = excluded.trace_ids, settled = excluded.settled, retry_at_ms = excluded.retry_at_ms,"
    " skipped = excluded.skipped"
)
_COVER: Final = 'UPDATE receipt SET "open" = ? WHERE session_id = ? AND seq <= ? AND "open" = ?'
# Without the mapper amounts are text, and SQLite has numbers for yes and no.
_KINDS: Final = {"amount_atoms": int, "owed_atoms": int, "settled": bool}


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
        ended: digest and atoms of own receipts after `before` up to the new seq, by seq, without waived ones.
        unfinished: lowest seq of an order up to there that has no receipt yet.
    """

    before: HeldVoucher | None
    ended: Sequence[tuple[bytes, int]]
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
        with self._turn, self._database.write_plain() as plain:
            before = _before(plain, voucher.session_id)
            verdict = judge(_facts(plain, before, voucher.session_id, voucher.through_seq))
            if verdict.replaces:
                _replace(plain, before, voucher, verdict)
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


def _before(plain: Plain, session_id: bytes) -> HeldVoucher | None:
    row = plain.row(_VOUCHER, (session_id,))
    return HeldVoucher(**row | {name: kind(row[name]) for name, kind in _KINDS.items()}) if row else None


def _facts(plain: Plain, before: HeldVoucher | None, session_id: bytes, through_seq: int) -> VoucherFacts:
    after = before.through_seq if before else 0
    ended = plain.rows(_ENDED, (session_id, after, through_seq, False))
    return VoucherFacts(
        before=before,
        ended=[(bytes(digest), int(amount)) for digest, amount in ended],
        unfinished=plain.rows(_UNFINISHED, (session_id, through_seq, *UNFINISHED))[0][0],
    )


def _replace(plain: Plain, before: HeldVoucher | None, voucher: HeldVoucher, verdict: VoucherVerdict) -> None:
    fresh = replace(
        voucher,
        leaves=verdict.tree.count,
        peaks=b"".join(verdict.tree.peaks),
        owed_atoms=verdict.owed_atoms,
    )
    if before is not None and not before.settled:
        traces = ",".join(t for t in (before.trace_ids, voucher.trace_ids) if t)
        fresh = replace(fresh, held_since_ms=before.held_since_ms, trace_ids=traces)
    amounts = {"amount_atoms": str(fresh.amount_atoms), "owed_atoms": str(fresh.owed_atoms)}
    plain.insert(_PUT, [tuple((asdict(fresh) | amounts).values())], _INSTEAD)
    plain.run(_COVER, (False, voucher.session_id, voucher.through_seq, True))


def _held(row: VoucherRow) -> HeldVoucher:
    return HeldVoucher(**row.model_dump())


def _split(peaks: bytes) -> tuple[bytes, ...]:
    return tuple(peaks[i : i + _WORD] for i in range(0, len(peaks), _WORD))

"""Claims of this node: receipts it asked the chain to pay without a voucher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func, update
from sqlmodel import Field, Session, col, select

from worker.ledger.base import Database, Table, atoms, big, blob
from worker.ledger.orders import UNFINISHED, OrderRow
from worker.ledger.receipts import ReceiptRow
from worker.ledger.sessions import SessionRow
from worker.ledger.vouchers import VoucherRow


class ClaimStage(StrEnum):
    """How far a claim is, as people are told."""

    ASKED = "asked"
    PENDING = "pending"
    HELD = "held"
    ENDED = "ended"


class ClaimRow(Table, table=True):
    """A session's newest claim; the lower half is what the chain last said of it."""

    __tablename__ = "claim"
    session_id: bytes = Field(sa_column=blob(primary_key=True))
    key: str
    terms: bytes = Field(sa_column=blob())
    through_seq: int = Field(sa_column=big())
    claimed_atoms: int = Field(sa_column=atoms())
    paid_before_atoms: int = Field(sa_column=atoms())
    made_at_ms: int = Field(sa_column=big())
    pending_atoms: int = Field(sa_column=atoms())
    held_atoms: int = Field(sa_column=atoms())
    paid_atoms: int = Field(sa_column=atoms())
    final_at: int = Field(sa_column=big())
    read_at_ms: int = Field(sa_column=big())
    ended: bool = Field(default=False, index=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClaim:
    """A claim and what the chain last said of it. `terms` decodes to `Open`.

    Attributes:
        through_seq: last order of the claim.
        paid_before_atoms: what the session had paid when the claim was made.
        pending_atoms: paid at `final_at` unless disputed.
        held_atoms: disputed; the court decides.
        paid_atoms: what the session has paid since, by the claim or by a voucher in its place.
        final_at: Unix seconds; 0 until the chain has the claim.
        ended: nothing more will come of it.
    """

    session_id: bytes
    key: str
    terms: bytes
    through_seq: int
    claimed_atoms: int
    paid_before_atoms: int
    made_at_ms: int
    pending_atoms: int = 0
    held_atoms: int = 0
    paid_atoms: int = 0
    final_at: int = 0
    read_at_ms: int = 0
    ended: bool = False

    @property
    def stage(self) -> ClaimStage:
        """How far it is."""
        if self.ended:
            return ClaimStage.ENDED
        if self.pending_atoms:
            return ClaimStage.PENDING
        return ClaimStage.HELD if self.held_atoms else ClaimStage.ASKED


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpaidSession:
    """A session with receipts that left, bill something, and that nothing pays yet.

    Attributes:
        owed_atoms: sum of those receipts.
        unfinished: its orders that have no receipt.
        unconfirmed: those of the receipts that the gateway has not confirmed, and may call superseded yet.
        voucher_waits: its newest voucher pays something and is not settled yet.
        claim_waits: a claim of it waits for its window.
    """

    session_id: bytes
    key: str
    expires_at: int
    closed: bool
    owed_atoms: int
    unfinished: int
    unconfirmed: int
    voucher_waits: bool
    claim_waits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpaidJob:
    """One of its receipts beside the order, as both were signed."""

    seq: int
    amount_atoms: int
    order: bytes
    order_signature: bytes
    receipt: bytes
    receipt_signature: bytes
    trace_id: str


class Claims:
    """Claims by session, and what could be claimed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, session_id: bytes) -> HeldClaim | None:
        """The session's newest claim, or None."""
        with self._database.read() as session:
            row = session.get(ClaimRow, session_id)
            return _held(row) if row else None

    def put(self, claim: HeldClaim) -> None:
        """Stores a claim in place of the session's former one."""
        with self._database.write() as session:
            session.merge(ClaimRow(**asdict(claim)))

    def note(self, claim: HeldClaim, *, settled_seq: int) -> None:
        """Stores what the chain says; receipts up to `settled_seq` stop being open, however they ended."""
        with self._database.write() as session:
            session.merge(ClaimRow(**asdict(claim)))
            session.exec(
                update(ReceiptRow)
                .where(
                    col(ReceiptRow.session_id) == claim.session_id,
                    col(ReceiptRow.seq) <= settled_seq,
                    col(ReceiptRow.open).is_(True),
                )
                .values(open=False)
            )

    def waiting(self) -> list[HeldClaim]:
        """Claims of which something may still come, oldest first."""
        query = select(ClaimRow).where(col(ClaimRow.ended).is_(False)).order_by(col(ClaimRow.made_at_ms))
        with self._database.read() as session:
            return [_held(row) for row in session.exec(query)]

    def all(self) -> list[HeldClaim]:
        """Every session's newest claim, oldest first."""
        query = select(ClaimRow).order_by(col(ClaimRow.made_at_ms))
        with self._database.read() as session:
            return [_held(row) for row in session.exec(query)]

    def unpaid(self, *, expired_after: int, expired_by: int) -> list[UnpaidSession]:
        """Unpaid sessions that expired after the one Unix second and by the other."""
        query = (
            select(SessionRow, func.sum(ReceiptRow.amount_atoms))
            .join(ReceiptRow, col(ReceiptRow.session_id) == col(SessionRow.session_id))
            .where(
                *_CLAIMABLE,
                col(SessionRow.expires_at) > expired_after,
                col(SessionRow.expires_at) <= expired_by,
            )
            .group_by(col(SessionRow.session_id))
        )
        with self._database.read() as session:
            found = list(session.exec(query))
            return [_unpaid(session, row, int(owed)) for row, owed in found]

    def owed(self, session_id: bytes, *, after_seq: int) -> list[tuple[int, int]]:
        """Seq and amount in atoms of each unpaid receipt of the session behind a seq."""
        query = select(ReceiptRow.seq, ReceiptRow.amount_atoms).where(
            *_CLAIMABLE, col(ReceiptRow.session_id) == session_id, col(ReceiptRow.seq) > after_seq
        )
        with self._database.read() as session:
            return [(seq, amount_atoms) for seq, amount_atoms in session.exec(query)]

    def jobs(self, session_id: bytes, seqs: Sequence[int]) -> list[UnpaidJob]:
        """Those of the session's jobs that are unpaid still, by seq."""
        query = (
            select(ReceiptRow, OrderRow)
            .join(OrderRow, col(OrderRow.order_hash) == col(ReceiptRow.order_hash))
            .where(*_CLAIMABLE, col(ReceiptRow.session_id) == session_id, col(ReceiptRow.seq).in_(seqs))
            .order_by(col(ReceiptRow.seq))
        )
        with self._database.read() as session:
            return [_job(receipt, order) for receipt, order in session.exec(query)]

    def voucher_waits(self, session_id: bytes) -> bool:
        """Whether the session's newest voucher pays something and is not settled yet."""
        with self._database.read() as session:
            row, voucher = session.get(SessionRow, session_id), session.get(VoucherRow, session_id)
            return _waits(voucher, row.paid_atoms if row else 0)

    def covered_atoms(self) -> int:
        """Sum of open receipts that a pending claim ends, paid by it or left out."""
        query = (
            select(func.coalesce(func.sum(ReceiptRow.amount_atoms), 0))
            .join(ClaimRow, col(ClaimRow.session_id) == col(ReceiptRow.session_id))
            .where(
                *_CLAIMABLE,
                col(ClaimRow.pending_atoms) != 0,
                col(ReceiptRow.seq) <= col(ClaimRow.through_seq),
            )
        )
        with self._database.read() as session:
            return int(session.exec(query).one())


# A receipt that never left was not delivered to anybody.
_CLAIMABLE: Sequence[Any] = (
    col(ReceiptRow.open).is_(True),
    col(ReceiptRow.amount_atoms) > 0,
    col(ReceiptRow.sent_at_ms).is_not(None),
)


def _unpaid(session: Session, row: SessionRow, owed_atoms: int) -> UnpaidSession:
    unfinished = select(func.count()).where(
        col(OrderRow.session_id) == row.session_id, col(OrderRow.state).in_(UNFINISHED)
    )
    unconfirmed = select(func.count()).where(
        *_CLAIMABLE, col(ReceiptRow.session_id) == row.session_id, col(ReceiptRow.delivered_at_ms).is_(None)
    )
    voucher, claim = session.get(VoucherRow, row.session_id), session.get(ClaimRow, row.session_id)
    return UnpaidSession(
        session_id=row.session_id,
        key=row.key,
        expires_at=row.expires_at,
        closed=row.closed,
        owed_atoms=owed_atoms,
        unfinished=int(session.exec(unfinished).one()),
        unconfirmed=int(session.exec(unconfirmed).one()),
        voucher_waits=_waits(voucher, row.paid_atoms),
        claim_waits=claim is not None and claim.pending_atoms > 0,
    )


def _waits(voucher: VoucherRow | None, paid_atoms: int) -> bool:
    # One that adds nothing to what was paid is never sent, and a claim behind it takes nothing from it.
    return voucher is not None and not voucher.settled and voucher.amount_atoms > paid_atoms


def _job(receipt: ReceiptRow, order: OrderRow) -> UnpaidJob:
    return UnpaidJob(
        seq=receipt.seq,
        amount_atoms=receipt.amount_atoms,
        order=order.message,
        order_signature=order.signature,
        receipt=receipt.message,
        receipt_signature=receipt.signature,
        trace_id=order.trace_id,
    )


def _held(row: ClaimRow) -> HeldClaim:
    return HeldClaim(**row.model_dump())

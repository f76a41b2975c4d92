"""How far a voucher may reach and what it must say. Pure; integers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.merkle import Frontier
from marketplace.protocol.messages import Voucher


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a session's newest voucher accepted: up to which seq, for how much, over which receipts."""

    through_seq: int
    amount_atoms: int
    frontier: Frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """One receipt a voucher has to cover."""

    seq: int
    digest: bytes
    amount_atoms: int
    answered: bool


def ended_prefix(through_seq: int, places: Sequence[tuple[int, bool]]) -> int:
    """The last seq before the first one that has not ended; seqs must follow each other without a gap."""
    reached = through_seq
    for seq, ended in places:
        if seq != reached + 1 or not ended:
            break
        reached = seq
    return reached


def worth_signing(owed: Sequence[Owed]) -> bool:
    """Whether a voucher over these would accept any answer at all."""
    return any(item.answered for item in owed)


def extend(tally: Tally, through_seq: int, owed: Sequence[Owed]) -> Tally:
    """The tally through a later seq; `owed` are all receipts in between, ascending."""
    frontier = tally.frontier
    for item in owed:
        frontier = frontier.append(item.digest)
    amount = tally.amount_atoms + sum(item.amount_atoms for item in owed)
    return Tally(through_seq=through_seq, amount_atoms=amount, frontier=frontier)


def voucher_of(session_id: bytes, tally: Tally) -> Voucher:
    """The message that accepts a tally."""
    return Voucher(
        session_id=session_id,
        through_seq=tally.through_seq,
        amount_atoms=tally.amount_atoms,
        receipts_root=tally.frontier.root(),
    )


def check_voucher(voucher: Voucher, expected: Voucher, running: Sequence[int], deposited_atoms: int) -> None:
    """Whether a voucher signed elsewhere says what the receipts say.

    Raises:
        BadRequest: the first difference, with both figures.
    """
    if running:
        raise BadRequest(ErrorCode.VOUCHER_MISMATCH, f"seq {running[0]} has not ended")
    if voucher.amount_atoms != expected.amount_atoms:
        raise BadRequest(
            ErrorCode.VOUCHER_MISMATCH,
            f"the receipts sum to {expected.amount_atoms} atoms, the voucher says {voucher.amount_atoms}",
        )
    if voucher.receipts_root != expected.receipts_root:
        raise BadRequest(ErrorCode.VOUCHER_MISMATCH, "receiptsRoot is not that of the receipts")
    if voucher.amount_atoms > deposited_atoms:
        raise BadRequest(ErrorCode.VOUCHER_MISMATCH, f"the session holds only {deposited_atoms} atoms")

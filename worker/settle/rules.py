"""Which vouchers are good, which are due, and what a skipped one means; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.due import SettlePolicy, Unsettled, due
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.merkle import Frontier
from marketplace.protocol.messages import SettleStatus, Voucher


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """The receipts an accepted voucher covers: their tree and the sum of their amounts."""

    tree: Frontier
    owed_atoms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The voucher a new one would replace."""

    through_seq: int
    amount_atoms: int
    covered: Covered


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One own receipt behind the former voucher: its digest and amount."""

    digest: bytes
    amount_atoms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One session's unsettled voucher beside its chain facts; times as in `HeldVoucher`."""

    session_id: bytes
    amount_atoms: int
    paid_atoms: int
    held_since_ms: int
    retry_at_ms: int
    expires_at: int
    closed: bool


HOPELESS: Final = frozenset({SettleStatus.STALE, SettleStatus.EXPIRED, SettleStatus.CLOSED})


def judge_voucher(
    voucher: Voucher,
    *,
    before: Before | None,
    ended: Sequence[Ended],
    unfinished_seq: int | None,
    deposited_atoms: int,
) -> Covered:
    """What a voucher covers, once it fits the own receipts.

    The amount must be at least the sum of all own receipts up to its seq; the root is over those receipts,
    failed ones included, waived ones not.

    Args:
        voucher: signed by the session's key.
        before: the voucher held so far.
        ended: own receipts after that one up to the new seq, by seq, without waived ones.
        unfinished_seq: lowest seq up to there that has no receipt yet.
        deposited_atoms: what the session holds.

    Raises:
        BadRequest: `voucher_mismatch`; the detail says which rule.
    """
    if before is not None:
        _check_rises(voucher, before)
    if unfinished_seq is not None:
        raise _mismatch(f"seq {unfinished_seq} has not ended here")
    owed = (before.covered.owed_atoms if before else 0) + sum(receipt.amount_atoms for receipt in ended)
    if voucher.amount_atoms < owed:
        raise _mismatch(f"amount {voucher.amount_atoms} is below {owed}, the sum of the receipts")
    if voucher.amount_atoms > deposited_atoms:
        raise _mismatch(f"amount {voucher.amount_atoms} is above the deposit of {deposited_atoms}")
    tree = before.covered.tree if before else Frontier()
    for receipt in ended:
        tree = tree.append(receipt.digest)
    if tree.root() != voucher.receipts_root:
        raise _mismatch(f"the root over this node's {tree.count} receipts is another")
    return Covered(tree=tree, owed_atoms=owed)


def plan(
    candidates: Sequence[Candidate],
    policy: SettlePolicy,
    *,
    grace_seconds: int,
    now_ms: int,
    everything: bool = False,
) -> list[bytes]:
    """Sessions to settle in one transaction now, soonest to expire first; none when it is not worth one.

    Args:
        candidates: unsettled vouchers; those that rest until later are passed over.
        policy: when it is worth a transaction.
        grace_seconds: time after expiry in which the escrow still settles.
        now_ms: now.
        everything: settle all that pays anything, whatever the policy says.
    """
    unsettled = [
        Unsettled(
            session_id=item.session_id,
            unpaid_atoms=item.amount_atoms - item.paid_atoms,
            held_since_ms=item.held_since_ms,
            expires_at=item.expires_at,
        )
        for item in candidates
        if item.retry_at_ms <= now_ms and not item.closed and now_ms // 1000 < item.expires_at + grace_seconds
    ]
    if everything:
        policy = SettlePolicy(
            min_total_atoms=1, max_age_ms=0, expiry_margin_seconds=0, max_items=policy.max_items
        )
    return [item.session_id for item in due(unsettled, policy, now_ms)]


def _check_rises(voucher: Voucher, before: Before) -> None:
    if voucher.through_seq < before.through_seq:
        raise _mismatch(f"seq {voucher.through_seq} is below {before.through_seq}, accepted before")
    if voucher.amount_atoms < before.amount_atoms:
        raise _mismatch(f"amount {voucher.amount_atoms} is below {before.amount_atoms}, accepted before")


def _mismatch(detail: str) -> BadRequest:
    return BadRequest(ErrorCode.VOUCHER_MISMATCH, detail)

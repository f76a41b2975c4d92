"""Which vouchers are good, which are due, and what no voucher pays; pure."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaid:
    """A session with receipts that no voucher pays, named as in the ledger's `UnpaidSession`."""

    session_id: bytes
    expires_at: int
    closed: bool
    owed_atoms: int
    unfinished: int
    unconfirmed: int
    voucher_waits: bool
    claim_waits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNow:
    """What the chain says of a claim; `settled_seq` and `expires_at` are its session's."""

    pending_atoms: int
    held_atoms: int
    final_at: int
    settled_seq: int
    expires_at: int


# Chain time may lag ours; only then is a session over for certain.
_LATE_SECONDS: Final = 600
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


def is_over(expires_at: int, *, grace_seconds: int, now_ms: int) -> bool:
    """Whether the escrow takes neither vouchers nor claims of a session any more, whatever its clock."""
    return now_ms // 1000 >= expires_at + grace_seconds + _LATE_SECONDS


def claimable(
    unpaid: Sequence[Unpaid],
    *,
    min_atoms: int,
    grace_seconds: int,
    margin_seconds: int,
    unconfirmed_seconds: int,
    now_ms: int,
) -> list[bytes]:
    """Sessions to claim for now, soonest to be over first.

    Only a session that has expired: until then a voucher may still come. Its own voucher is settled first,
    for a claim behind it would make it stale; and its orders have ended, for a claim frees those left out.

    Args:
        unpaid: sessions with unpaid receipts.
        min_atoms: least sum worth the gas of a claim and its end.
        grace_seconds: time after expiry in which the escrow takes claims.
        margin_seconds: a claim is sent this long before that time is over, or not at all.
        unconfirmed_seconds: and only this long before that, while a gateway has not confirmed a receipt: it
            may have given the job to another node, and one call is charged once (decision 7).
        now_ms: now.
    """
    now = now_ms // 1000
    closing_seconds = grace_seconds - margin_seconds
    ready = [
        item
        for item in unpaid
        if item.expires_at <= now < item.expires_at + closing_seconds
        and (not item.unconfirmed or now >= item.expires_at + closing_seconds - unconfirmed_seconds)
        and item.owed_atoms >= min_atoms
        and not (item.closed or item.unfinished or item.voucher_waits or item.claim_waits)
    ]
    return [item.session_id for item in sorted(ready, key=lambda item: (item.expires_at, item.session_id))]


def most_valuable(owed: Sequence[tuple[int, int]], *, most: int, limit_atoms: int) -> list[int]:
    """Seqs of the receipts that one claim holds, ascending: the dearest that fit, of equal ones the first.

    Args:
        owed: seq and amount in atoms of each receipt.
        most: receipts in one claim.
        limit_atoms: what they may come to together.
    """
    chosen: list[int] = []
    left_atoms = limit_atoms
    for seq, amount_atoms in sorted(owed, key=lambda job: (-job[1], job[0])):
        if len(chosen) < most and amount_atoms <= left_atoms:
            chosen.append(seq)
            left_atoms -= amount_atoms
    return sorted(chosen)


def look_due(
    *, pending_atoms: int, final_at: int, is_settled: bool, read_at_ms: int, every_ms: int, now_ms: int
) -> bool:
    """Whether a claim is to be read from the chain.

    Not seen there yet; or pending though its window is over or its session settled as far; or read long ago.
    """
    moved = pending_atoms > 0 and (is_settled or now_ms // 1000 >= final_at)
    return final_at == 0 or moved or now_ms - read_at_ms >= every_ms


def has_ended(now: ClaimNow, *, through_seq: int, was_seen: bool, grace_seconds: int, now_ms: int) -> bool:
    """Whether nothing more will come of a claim through a seq.

    Either it is decided: the session is settled as far, by the claim or by a voucher in its place, and the
    court holds nothing. Or the chain has no such claim, and takes none any more. `was_seen` says that it had
    it when it was last read; then one look without it may be a lagging node's.
    """
    if now.pending_atoms or now.held_atoms:
        return False
    if now.settled_seq >= through_seq:
        return True
    return not was_seen and is_over(now.expires_at, grace_seconds=grace_seconds, now_ms=now_ms)


def _check_rises(voucher: Voucher, before: Before) -> None:
    if voucher.through_seq < before.through_seq:
        raise _mismatch(f"seq {voucher.through_seq} is below {before.through_seq}, accepted before")
    if voucher.amount_atoms < before.amount_atoms:
        raise _mismatch(f"amount {voucher.amount_atoms} is below {before.amount_atoms}, accepted before")


def _mismatch(detail: str) -> BadRequest:
    return BadRequest(ErrorCode.VOUCHER_MISMATCH, detail)

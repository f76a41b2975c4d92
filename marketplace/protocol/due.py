"""Which vouchers are worth a transaction now: by amount, age or expiry, whichever comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SettlePolicy:
    """When a node turns vouchers into earnings.

    Attributes:
        min_total_atoms: settle once all unsettled vouchers together reach this.
        max_age_ms: settle once the oldest unsettled voucher is this old.
        expiry_margin_seconds: settle when a session expires within this.
        max_items: vouchers in one transaction at most (bounded by the 16.7 M gas limit of EIP-7825).
    """

    min_total_atoms: int
    max_age_ms: int
    expiry_margin_seconds: int
    max_items: int = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsettled:
    """One session's newest voucher and what it adds over what the chain has paid."""

    session_id: bytes
    unpaid_atoms: int
    held_since_ms: int
    expires_at: int


def due(unsettled: Sequence[Unsettled], policy: SettlePolicy, now_ms: int) -> list[Unsettled]:
    """The vouchers to settle now: all that pay anything, once any rule fires; none before.

    Soonest to expire first, at most `policy.max_items`.
    """
    payable = [item for item in unsettled if item.unpaid_atoms > 0]
    if not any((_enough(payable, policy), _old(payable, policy, now_ms), _expiring(payable, policy, now_ms))):
        return []
    return sorted(payable, key=lambda item: (item.expires_at, item.session_id))[: policy.max_items]


def _enough(items: Sequence[Unsettled], policy: SettlePolicy) -> bool:
    return bool(items) and sum(item.unpaid_atoms for item in items) >= policy.min_total_atoms


def _old(items: Sequence[Unsettled], policy: SettlePolicy, now_ms: int) -> bool:
    return any(now_ms - item.held_since_ms >= policy.max_age_ms for item in items)


def _expiring(items: Sequence[Unsettled], policy: SettlePolicy, now_ms: int) -> bool:
    return any(item.expires_at - policy.expiry_margin_seconds <= now_ms // 1000 for item in items)

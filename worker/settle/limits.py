"""Whose earnings are settled, and how patiently."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.protocol.due import SettlePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleLimits:
    """Whose earnings, and how patient settling is.

    Attributes:
        node_id: node of this settler.
        policy: when vouchers are worth a transaction.
        collect_min_atoms: earnings worth collecting; 0 never collects.
        confirm_seconds: how long one call waits for a confirmation; the next call goes on waiting.
        retry_ms: how long a voucher rests after the escrow skipped it for a reason that may pass.
    """

    node_id: int
    policy: SettlePolicy
    collect_min_atoms: int
    confirm_seconds: int = 60
    retry_ms: int = 60_000

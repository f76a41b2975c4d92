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
        claim_min_atoms: unpaid receipts of one session worth claiming; 0 never claims.
        claim_margin_seconds: claims are sent this long before the escrow takes no more.
        claim_unconfirmed_seconds: while its gateway has not confirmed a receipt, which may be superseded yet,
            a session is claimed only this long before it would be too late.
        claim_max_receipts: receipts in one claim. Each is 928 bytes, and Ethereum's nodes pass on
            transactions of at most 128 KiB; 128 receipts cost 3 M gas.
        claim_look_ms: a waiting claim is read from the chain this often.
        confirm_seconds: how long one call waits for a confirmation; the next call goes on waiting.
        retry_ms: how long a voucher rests after the escrow skipped it for a reason that may pass.
    """

    node_id: int
    policy: SettlePolicy
    collect_min_atoms: int
    claim_min_atoms: int
    claim_margin_seconds: int = 30
    claim_unconfirmed_seconds: int = 300
    claim_max_receipts: int = 128
    claim_look_ms: int = 60_000
    confirm_seconds: int = 60
    retry_ms: int = 60_000

"""What a job costs. Twin of `contracts/libraries/Pricing.sol`; one set of vectors judges both."""

from __future__ import annotations

from typing import Final

from marketplace.protocol.messages import Offer, Order, ReceiptStatus

MILLION: Final = 1_000_000
BPS: Final = 10_000


def full_price_down(offer: Offer, units_in: int, units_out: int) -> int:
    """Price in atoms before any discount or cap, rounded down."""
    metered = units_in * offer.price_in_per_million_atoms + units_out * offer.price_out_per_million_atoms
    return offer.price_per_job_atoms + metered // MILLION


def amount_due(
    offer: Offer, order: Order, *, units_in: int, units_out: int, finished_at_ms: int, status: int
) -> int:
    """Atoms a receipt may ask for.

    Nothing for a failed job or one past its deadline; less the late discount; never above the
    order's maximum.
    """
    if status == ReceiptStatus.FAILED or finished_at_ms > order.deadline_ms:
        return 0
    price = full_price_down(offer, units_in, units_out)
    elapsed_ms = max(0, finished_at_ms - order.issued_at_ms)
    if 0 < offer.max_latency_ms < elapsed_ms:
        price -= price * min(offer.late_discount_bps, BPS) // BPS
    return min(price, order.max_amount_atoms)

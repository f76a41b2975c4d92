"""Builds receipt and annex of one order from what was done; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from marketplace.protocol.annex import Annex, EnergyMethod, Profile, Sampling, exec_hash
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import Offer, Order, Receipt, ReceiptStatus
from marketplace.protocol.pricing import amount_due
from marketplace.protocol.trace import TraceBlock, pack_tokens, trace_root
from worker.ledger import HeldOrder

_CUT_SHORT: Final = frozenset({"deadline", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What was done for one order.

    Attributes:
        finish: how it ended: an engine's finish, or why it failed.
        failed: nothing is charged.
        profile: what decided the bits; empty for work that never ran.
        sampling: how tokens were drawn; None when none were.
        token_ids: of the answer.
        trace: what the answer's blocks commit to.
        seed: 64 bits the sampling was drawn from.
    """

    finish: str
    failed: bool
    started_at_ms: int
    finished_at_ms: int
    units_in: int = 0
    units_out: int = 0
    energy_millijoules: int = 0
    energy_method: EnergyMethod = "none"
    device_microseconds: int = 0
    profile: Profile = field(default_factory=Profile)
    sampling: Sampling | None = None
    token_ids: tuple[int, ...] = ()
    trace: tuple[TraceBlock, ...] = ()
    seed: int = 0


def failed_work(reason: str, *, started_at_ms: int, finished_at_ms: int) -> Work:
    """Work that came to nothing."""
    return Work(finish=reason, failed=True, started_at_ms=started_at_ms, finished_at_ms=finished_at_ms)


def without_lease(work: Work, lease_until_ms: int, now_ms: int) -> Work:
    """The work as it may be signed at `now_ms`: failed once the gateway's lease has lapsed."""
    if work.failed or now_ms < lease_until_ms:
        return work
    return replace(
        work,
        finish="lease_lapsed",
        failed=True,
        units_in=0,
        units_out=0,
        sampling=None,
        token_ids=(),
        trace=(),
    )


def build(
    held: HeldOrder, offer: Offer, model_id: bytes, bodies: Sequence[bytes], work: Work
) -> tuple[Receipt, bytes]:
    """Receipt and annex bytes; the response hash covers every stored chunk, also of failed work."""
    order = Order.decode(held.message)
    status = _status(work)
    annex = Annex(
        trace_id=held.trace_id,
        model=to_hex(model_id),
        profile=work.profile,
        profile_hash=to_hex(work.profile.digest()),
        sampling=work.sampling,
        token_ids=pack_tokens(work.token_ids),
        trace_root=to_hex(trace_root(held.order_hash, work.trace)),
        seed=str(work.seed),
        units_in=work.units_in,
        units_out=work.units_out,
        finish=work.finish,
        device_microseconds=work.device_microseconds,
        energy_method=work.energy_method,
    ).encode()
    receipt = Receipt(
        order_hash=held.order_hash,
        response_hash=response_hash(held.salt, bodies),
        exec_hash=exec_hash(annex),
        units_in=work.units_in,
        units_out=work.units_out,
        amount_atoms=amount_due(
            offer,
            order,
            units_in=work.units_in,
            units_out=work.units_out,
            finished_at_ms=work.finished_at_ms,
            status=status,
        ),
        started_at_ms=work.started_at_ms,
        finished_at_ms=work.finished_at_ms,
        energy_millijoules=work.energy_millijoules,
        status=status,
    )
    return receipt, annex


def _status(work: Work) -> ReceiptStatus:
    if work.failed:
        return ReceiptStatus.FAILED
    return ReceiptStatus.CUT_SHORT if work.finish in _CUT_SHORT else ReceiptStatus.DONE

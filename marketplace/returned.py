"""What a node says of its orders, in one transaction for all that came at once: one voucher a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from marketplace.dispatch import measure, returns
from marketplace.dispatch.returns import Outcome
from marketplace.dispatch.streams import Streams
from marketplace.funding import step as funding
from marketplace.funding.vault import Vault
from marketplace.protocol import wire
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Receipt
from marketplace.settlement import step as settlement
from marketplace.settlement.step import Acceptance
from marketplace.store.tables import Tx
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Log, Span

Frame = wire.Accepted | wire.ReceiptFrame | wire.VoucherTaken

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Keys held here, the domain they sign in, and the time."""

    vault: Vault
    domain: Domain
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A frame of a node.

    Attributes:
        chunks: what came of a receipt's order before it.
        first_ms: when the first of them came; None when this gateway was not there.
    """

    frame: Frame
    chunks: Sequence[bytes] = ()
    first_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was stored of a frame.

    Attributes:
        issued_at_ms: of an order that is accepted now.
        outcome: of a receipt.
    """

    said: Said
    issued_at_ms: int | None = None
    outcome: Outcome | None = None

    @property
    def receipted(self) -> str | None:
        """The order a receipt is for."""
        frame = self.said.frame
        return to_hex(frame.order_hash) if isinstance(frame, wire.ReceiptFrame) else None


def said(streams: Streams, frame: Frame) -> Said:
    """A frame with the chunks that came by now."""
    if not isinstance(frame, wire.ReceiptFrame):
        return Said(frame=frame)
    assembly = streams.assembly(to_hex(frame.order_hash))
    if assembly is None:
        return Said(frame=frame)
    first_ms = assembly.first_ms if assembly.live else None
    return Said(frame=frame, chunks=tuple(assembly.chunks), first_ms=first_ms)


def take(tx: Tx, node_id: int, frames: Iterable[Said], keys: Keys) -> tuple[list[Taken], list[Acceptance]]:
    """Stores frames in order, and the vouchers over what they ended.

    Raises:
        BadRequest: one of them is not the node's to say, or not true; nothing of any may stay.
        LostRace: an order ended meanwhile; take them again.
    """
    taken = []
    for one in frames:
        taken.append(_take(tx, node_id, one, keys))
        # The next sees rows as they are stored: updates pass by those that are loaded.
        tx.flush()
        tx.expunge_all()
    return taken, cover(tx, [one.outcome for one in taken], keys)


def cover(tx: Tx, outcomes: Iterable[Outcome | None], keys: Keys) -> list[Acceptance]:
    """In the same transaction: vouchers over the prefixes that these outcomes may have lengthened."""
    sessions = {outcome.session_id: outcome.job.key for outcome in outcomes if outcome is not None}
    found = []
    for session_id, address in sessions.items():
        key = funding.held_key(tx, keys.vault, address)
        if key is not None:
            found.append(settlement.acknowledge(tx, session_id, key, keys.domain, keys.now_ms))
    return [acceptance for acceptance in found if acceptance is not None]


def note(metrics: Metrics, node_id: int, taken: Taken, now_ms: int) -> None:
    """Counts and logs what was stored of a frame."""
    frame = taken.said.frame
    if taken.issued_at_ms is not None:
        measure.stage(metrics, Span.DISPATCH, taken.issued_at_ms, now_ms)
    elif isinstance(frame, wire.VoucherTaken):
        metrics.count("vouchers_total", result="refused" if frame.code else "taken")
        if frame.code is not None:
            log.warning(Log.VOUCHER_REFUSED, node_id=node_id, code=frame.code, detail=frame.detail[:200])
    elif isinstance(frame, wire.ReceiptFrame) and taken.outcome is not None and taken.outcome.ended:
        receipt = Receipt.decode(frame.receipt.message)
        measure.ended(metrics, taken.outcome.job, receipt, taken.said.first_ms, now_ms)


def _take(tx: Tx, node_id: int, one: Said, keys: Keys) -> Taken:
    frame = one.frame
    match frame:
        case wire.Accepted():
            issued_at_ms = returns.accepted(tx, node_id, to_hex(frame.order_hash))
            return Taken(said=one, issued_at_ms=issued_at_ms)
        case wire.ReceiptFrame():
            outcome = returns.receipt(tx, node_id, frame, one.chunks, keys.domain, keys.now_ms)
            return Taken(said=one, outcome=outcome)
        case wire.VoucherTaken():
            settlement.answered(tx, node_id, frame)
            return Taken(said=one)

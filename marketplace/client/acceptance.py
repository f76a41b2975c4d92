"""When a key accepts a receipt: every check passes, and every party is the one the key dealt with. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from marketplace.client.bundle import Bundle
from marketplace.client.journal import Seat, SeatState, Session
from marketplace.client.verify import Check, check_offline, failures
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import ErrorCode, ProviderFault
from marketplace.protocol.merkle import root
from marketplace.protocol.messages import Voucher


def accept(bundle: Bundle, session: Session, domain: Domain) -> tuple[Check, ...]:
    """The checks a receipt passed.

    Raises:
        ProviderFault: one failed; the bundle is the evidence. Its job is never paid.
    """
    checks = (*_same_parties(bundle, session, domain), *check_offline(bundle))
    failed = failures(checks)
    if failed:
        named = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        raise ProviderFault(
            ErrorCode.RECEIPT_INVALID,
            f"The receipt of node {session.node_id} does not hold ({named}). It will not be paid.",
            bundle=bundle.to_json(),
            failed=[check.name for check in failed],
        )
    return checks


def draft_voucher(session_id: bytes, seats: Sequence[Seat]) -> Voucher | None:
    """The voucher through the longest run of ended seats from the first; None for an empty run."""
    ended: list[Seat] = []
    for seat in seats:
        if seat.state is SeatState.PENDING:
            break
        ended.append(seat)
    if not ended:
        return None
    return Voucher(
        session_id=session_id,
        through_seq=ended[-1].seq,
        amount_atoms=sum(seat.amount_atoms for seat in ended),
        receipts_root=root([seat.digest for seat in ended if seat.digest is not None]),
    )


def _same_parties(bundle: Bundle, session: Session, domain: Domain) -> list[Check]:
    order_ok = bundle.order.session_id == session.session_id
    node_ok = (bundle.node_id, bundle.epoch) == (session.node_id, session.key_epoch)
    return [
        Check("contracts", bundle.domain == domain, f"escrow {bundle.domain.escrow}"),
        Check("session", order_ok, "ordered in this session" if order_ok else "ordered in another session"),
        Check("key", bundle.key == session.key, f"ordered by {bundle.key}"),
        Check("node", node_ok, f"node {bundle.node_id}, key epoch {bundle.epoch}"),
        Check(
            "node key", bundle.signer == session.signer, f"{bundle.signer}; on-chain it is {session.signer}"
        ),
    ]

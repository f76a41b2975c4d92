"""Load receipts → tally them → sign or check the voucher; and take what the chain has paid."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.messages import Receipt, ReceiptStatus, Voucher
from marketplace.protocol.phases import EndReason, JobPhase
from marketplace.protocol.signing import BadSignature, Signer, signer_of
from marketplace.protocol.wire import Signed, VoucherFrame, VoucherTaken
from marketplace.settlement import claims, rules
from marketplace.store import events as chain_log
from marketplace.store import jobs, receipts, sessions, vouchers
from marketplace.store.tables import ReceiptRow, SessionRow, Tx, VoucherRow

# After this long past expiry and grace no voucher can have settled unseen.
_LAG_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """A stored voucher and the frame that tells its node."""

    node_id: int
    frame: VoucherFrame
    amount_atoms: int
    through_seq: int


def acknowledge(tx: Tx, session_id: str, key: Signer, domain: Domain, now_ms: int) -> Acceptance | None:
    """Signs for the longest ended prefix of a held key's session; None when that accepts nothing new."""
    session = sessions.find(tx, session_id)
    if session is None or session.closed or sessions.taken_back(tx, session_id):
        return None
    # Held here, the row is not read again when its successor is stored.
    before = vouchers.find(tx, session_id)
    tally = _tally(before)
    places = [(place.seq, place.ended) for place in jobs.places(tx, session_id, tally.through_seq)]
    through = rules.ended_prefix(tally.through_seq, places)
    rows = receipts.owed_between(tx, session_id, tally.through_seq, through)
    owed = _owed(rows, domain)
    if not rules.worth_signing(owed):
        return None
    after = rules.extend(tally, through, owed)
    voucher = rules.voucher_of(from_hex(session_id, 32), after)
    return _store(tx, session, voucher, key.sign(voucher, domain), after, rows, now_ms)


def take_voucher(
    tx: Tx, voucher: Voucher, signature: bytes, domain: Domain, now_ms: int
) -> Acceptance | None:
    """Stores a voucher its key signed elsewhere; None when it is known already.

    Raises:
        BadRequest: unknown session, foreign signature, or other figures than the receipts'.
    """
    session_id = to_hex(voucher.session_id)
    session = sessions.find(tx, session_id)
    if session is None:
        raise BadRequest(ErrorCode.UNKNOWN_SESSION)
    _check_signature(voucher, signature, domain, session.key)
    known = vouchers.find(tx, session_id)
    if known is not None and known.message == voucher.encode():
        return None
    tally = _tally(known)
    if voucher.through_seq <= tally.through_seq:
        detail = f"a voucher through seq {tally.through_seq} is held already"
        raise BadRequest(ErrorCode.VOUCHER_MISMATCH, detail)
    rows = receipts.owed_between(tx, session_id, tally.through_seq, voucher.through_seq)
    after = rules.extend(tally, voucher.through_seq, _owed(rows, domain))
    places = jobs.places(tx, session_id, tally.through_seq)
    running = [place.seq for place in places if not place.ended and place.seq <= voucher.through_seq]
    expected = rules.voucher_of(voucher.session_id, after)
    rules.check_voucher(voucher, expected, running, session.deposited_atoms)
    return _store(tx, session, voucher, signature, after, rows, now_ms)


def answered(tx: Tx, node_id: int, frame: VoucherTaken) -> None:
    """A node took its voucher, or said why not. Raises `BadRequest` when the session is not the node's."""
    session_id = to_hex(frame.session_id)
    voucher = vouchers.find(tx, session_id)
    if voucher is None or voucher.node_id != node_id:
        raise BadRequest(ErrorCode.ORDER_MISDIRECTED, f"session {session_id} is not with you")
    if frame.through_seq != voucher.through_seq:
        # An answer to an older one; a newer is on its way.
        return
    problem = None if frame.code is None else f"{frame.code}: {frame.detail}"[:500]
    vouchers.mark_taken(tx, session_id, frame.through_seq, problem)


def pending(tx: Tx, node_id: int) -> list[VoucherFrame]:
    """Vouchers a node has still to take."""
    return [frame_of(row) for row in vouchers.untaken(tx, node_id)]


def again(tx: Tx, session_id: str) -> VoucherFrame | None:
    """A session's newest voucher, when its node has not taken it."""
    row = vouchers.find(tx, session_id)
    return None if row is None or row.taken else frame_of(row)


def frame_of(row: VoucherRow, trace_ids: list[str] | None = None) -> VoucherFrame:
    """The frame of a stored voucher."""
    signed = Signed(message=row.message, signature=row.signature)
    return VoucherFrame(voucher=signed, trace_ids=trace_ids or [])


def on_settled(domain: Domain, tx: Tx, session_id: str, after_seq: int) -> None:
    """What the chain pays of a session above a seq may have changed: puts its jobs there. Idempotent."""
    events = chain_log.payments(tx, session_id)
    # A claim is decided receipt by receipt, later than its seqs are reached.
    has_claims = any(event.name == "Claimed" for event in events)
    rows = receipts.billed(tx, session_id, 0 if has_claims else after_seq)
    digests = [to_hex(Receipt.decode(row.message).digest(domain)) if has_claims else "" for row in rows]
    bills = [claims.Bill(seq=row.seq, digest=digest) for row, digest in zip(rows, digests, strict=True)]
    moved: dict[tuple[JobPhase, str | None, str | None], list[str]] = defaultdict(list)
    for row, verdict in zip(rows, claims.verdicts(events, bills), strict=True):
        after = _standing(row, verdict)
        if after != (row.phase, row.settled_tx, row.end_reason):
            moved[after].append(row.order_hash)
    for (phase, tx_hash, reason), order_hashes in moved.items():
        receipts.mark(tx, order_hashes, phase, settled_tx=tx_hash, end_reason=reason)


def refund_unpayable(tx: Tx, now_ms: int, grace_seconds: int, limit: int = 100) -> int:
    """Ends delivered jobs of sessions that can never pay them; gives how many sessions. Idempotent."""
    expired_before = now_ms // 1000 - grace_seconds - _LAG_SECONDS
    found = receipts.unpayable(tx, expired_before, limit)
    for unpaid in found:
        reason = EndReason.SESSION_EXPIRED.value
        receipts.refund(tx, unpaid.session_id, unpaid.paid_through_seq, reason)
    return len(found)


def _standing(row: receipts.Billed, verdict: claims.Verdict) -> tuple[JobPhase, str | None, str | None]:
    """Phase, paying transaction and end reason that a verdict gives a job."""
    phase, reason = JobPhase(row.phase), row.end_reason
    if verdict.refund is not None:
        return JobPhase.REFUNDED, None, verdict.refund.value
    if phase is JobPhase.REFUNDED:
        ran_out = reason == EndReason.SESSION_EXPIRED
        if verdict.tx_hash is None and ran_out and not verdict.is_waiting:
            return phase, None, reason
        reason = (EndReason.CUT_SHORT if row.status == ReceiptStatus.CUT_SHORT else EndReason.DONE).value
    if verdict.tx_hash is not None:
        return JobPhase.SETTLED, verdict.tx_hash, reason
    taken_back = phase in (JobPhase.SETTLED, JobPhase.REFUNDED)
    return JobPhase.ACKNOWLEDGED if taken_back else phase, None, reason


def _tally(row: VoucherRow | None) -> rules.Tally:
    frontier = vouchers.frontier(row)
    if row is None:
        return rules.Tally(through_seq=0, amount_atoms=0, frontier=frontier)
    return rules.Tally(through_seq=row.through_seq, amount_atoms=row.amount_atoms, frontier=frontier)


def _owed(rows: list[ReceiptRow], domain: Domain) -> list[rules.Owed]:
    return [
        rules.Owed(
            seq=row.seq,
            digest=Receipt.decode(row.message).digest(domain),
            amount_atoms=row.amount_atoms,
            answered=row.status != ReceiptStatus.FAILED,
        )
        for row in rows
    ]


def _check_signature(voucher: Voucher, signature: bytes, domain: Domain, key: str) -> None:
    try:
        found = signer_of(voucher, domain, signature)
    except BadSignature as error:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, str(error)) from error
    if found != key:
        raise BadRequest(ErrorCode.BAD_SIGNATURE, f"the voucher must be signed by {key}, was by {found}")


def _store(
    tx: Tx,
    session: SessionRow,
    voucher: Voucher,
    signature: bytes,
    tally: rules.Tally,
    rows: list[ReceiptRow],
    now_ms: int,
) -> Acceptance:
    row = VoucherRow(
        session_id=session.session_id,
        node_id=session.node_id,
        through_seq=voucher.through_seq,
        amount_atoms=voucher.amount_atoms,
        message=voucher.encode(),
        signature=signature,
        signed_at_ms=now_ms,
        leaves=tally.frontier.count,
        peaks=b"".join(tally.frontier.peaks),
        taken=False,
        problem=None,
    )
    vouchers.put(tx, row)
    traces = receipts.traces(tx, [item.order_hash for item in rows])
    receipts.acknowledge(tx, session.session_id, voucher.through_seq)
    return Acceptance(
        node_id=session.node_id,
        frame=frame_of(row, traces),
        amount_atoms=voucher.amount_atoms,
        through_seq=voucher.through_seq,
    )

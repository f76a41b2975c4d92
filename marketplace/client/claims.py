"""What a node claims of a session, beside what the buyer's journal knows of it.

A buyer who was never given a receipt finds it here: whoever claims shows order and receipt to the chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from marketplace.chain import history
from marketplace.chain.calls import SignedJob
from marketplace.chain.claims import jobs_in
from marketplace.chain.client import ChainClient
from marketplace.client.journal import Journal, SeatState
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open, Order, Receipt


class Known(StrEnum):
    """What a journal says of a claimed job: whether its order is there, and how that ended."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    OTHER_RECEIPT = "other receipt"
    NOT_ORDERED = "not ordered"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job as its node claims it.

    Attributes:
        known: `UNKNOWN` where the session is of another journal; `OTHER_RECEIPT` where the node delivered
            another receipt for the order than it claims.
        is_disputed: there is a case; its id is `digest`.
        disputable_until: Unix seconds; 0 when it can no longer be demanded or challenged as a claim.
    """

    domain: Domain
    node_id: int
    order: Order
    receipt: Receipt
    receipt_signature: bytes
    known: Known
    is_disputed: bool
    disputable_until: int

    @property
    def digest(self) -> bytes:
        """Of the receipt."""
        return self.receipt.digest(self.domain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """All that was claimed of a session, oldest first.

    `hidden` are the transactions whose calldata does not show every receipt they claim.
    """

    session_id: bytes
    jobs: tuple[ClaimedJob, ...]
    hidden: tuple[bytes, ...]

    def job(self, seq: int) -> ClaimedJob:
        """The newest claimed job of a sequence number.

        Raises:
            BadRequest: none is claimed, or its transaction does not show it.
        """
        found = [job for job in self.jobs if job.order.seq == seq]
        if found:
            return found[-1]
        detail = f"no claim on session {to_hex(self.session_id)} shows an order {seq}"
        if not self.hidden:
            raise BadRequest(
                ErrorCode.UNKNOWN_RECEIPT, detail, hint="See what is claimed: watt dispute claims SESSION"
            )
        raise BadRequest(
            ErrorCode.UNKNOWN_RECEIPT,
            f"{detail}; transaction {to_hex(self.hidden[-1])} claims through a contract that hides it",
            hint="An RPC with traces shows the escrow's input: debug_traceTransaction. Or use the bundle.",
        )


def claims_of(chain: ChainClient, session_id: bytes, terms: Open, journal: Journal | None) -> Claims:
    """What is claimed of a session, as the claims' own transactions show it.

    Raises:
        BadRequest: the chain knows no such session.
        ChainTrouble: the chain does not answer.
    """
    domain, now = chain.deployment.domain, chain.next_timestamp()
    state = chain.session(session_id, terms.key)
    if state is None:
        raise BadRequest(
            ErrorCode.UNKNOWN_SESSION,
            f"session {to_hex(session_id)} is not on the chain",
            hint="watt session list",
        )
    node_key = chain.signer_at(state.node_id, state.key_epoch)
    disputed = history.disputed_receipts(chain, session_id)
    jobs: list[ClaimedJob] = []
    hidden: list[bytes] = []
    for made in history.claims_made(chain, session_id):
        data = chain.tx_input(made.tx_hash)
        shown = jobs_in(data, made.digests, session_id=session_id, node_key=node_key, domain=domain)
        hidden += [made.tx_hash] if len(shown) < len(made.digests) else []
        for signed in shown:
            is_disputed = signed.receipt.digest(domain) in disputed
            is_open = made.is_pending and not is_disputed and now < made.final_at
            jobs.append(
                ClaimedJob(
                    domain=domain,
                    node_id=state.node_id,
                    order=signed.order,
                    receipt=signed.receipt,
                    receipt_signature=signed.receipt_signature,
                    known=_known(journal, signed, domain),
                    is_disputed=is_disputed,
                    disputable_until=made.final_at if is_open else 0,
                )
            )
    return Claims(session_id=session_id, jobs=tuple(jobs), hidden=tuple(hidden))


def _known(journal: Journal | None, job: SignedJob, domain: Domain) -> Known:
    session_id = job.order.session_id
    if journal is None or journal.session(session_id) is None:
        return Known.UNKNOWN
    seat = next((seat for seat in journal.seats(session_id) if seat.seq == job.order.seq), None)
    if seat is None or seat.order != job.order:
        return Known.NOT_ORDERED
    if seat.state is not SeatState.RECEIPTED:
        return Known.UNDELIVERED
    return Known.DELIVERED if seat.digest == job.receipt.digest(domain) else Known.OTHER_RECEIPT

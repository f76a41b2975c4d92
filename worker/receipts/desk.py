"""Signs receipts: one an order, inside the transaction that stores it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import Broken, ErrorCode, LostRace
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Offer
from marketplace.protocol.signing import Signer
from marketplace.protocol.trace import encode_blocks
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import HeldOrder, HeldReceipt, Ledger, MakeReceipt, SignedReceipt
from worker.receipts.build import Work, build, failed_work, without_lease

log = get_logger(__name__)


class ReceiptDesk:
    """The one place where the node's key signs for work."""

    def __init__(self, ledger: Ledger, signer: Signer, domain: Domain, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._signer = signer
        self._domain = domain
        self._now_ms = now_ms

    def sign(self, order_hash: bytes, worker: str | None, work: Work) -> HeldReceipt:
        """The order's receipt: the stored one, else one for this work.

        Work whose gateway lease has lapsed is signed as failed, with amount 0.

        Raises:
            LostRace: unknown order, or another process holds the worker lease.
        """
        order = self._ledger.orders.get(order_hash)
        if order is None:
            raise LostRace(ErrorCode.UNKNOWN_JOB, f"no order {to_hex(order_hash)} here")
        make = self.maker(order, work)
        receipt = self._ledger.signing.once(order_hash, worker, make, now_ms=self._now_ms())
        note_signed(order, receipt, work)
        return receipt

    def maker(self, order: HeldOrder, work: Work) -> MakeReceipt:
        """What signs for this work inside the transaction that stores it; made before that begins."""
        offer = self._offer(order.offer_hash)

        def make(held: HeldOrder, bodies: Sequence[bytes]) -> SignedReceipt:
            return self._make(held, offer, bodies, work)

        return make

    def fail(self, order_hash: bytes, worker: str | None, reason: str) -> HeldReceipt:
        """Ends an order with a status-0 receipt. Raises as `sign`."""
        now_ms = self._now_ms()
        order = self._ledger.orders.get(order_hash)
        started_at_ms = order.accepted_at_ms if order else now_ms
        work = failed_work(reason, started_at_ms=min(started_at_ms, now_ms), finished_at_ms=now_ms)
        return self.sign(order_hash, worker, work)

    def _offer(self, offer_hash: bytes) -> Offer:
        held = self._ledger.offers.get(offer_hash)
        if held is None:
            raise Broken(ErrorCode.INTERNAL, f"offer {to_hex(offer_hash)} of an accepted order is gone")
        return Offer.decode(held.message)

    def _make(self, held: HeldOrder, offer: Offer, bodies: Sequence[bytes], work: Work) -> SignedReceipt:
        now_ms = self._now_ms()
        honest = without_lease(work, held.gateway_lease_until_ms, now_ms)
        receipt, annex = build(held, offer, offer.model_id, bodies, honest)
        digest = receipt.digest(self._domain)
        return SignedReceipt(
            digest=digest,
            message=receipt.encode(),
            signature=self._signer.sign_digest(digest),
            annex=annex,
            amount_atoms=receipt.amount_atoms,
            status=receipt.status,
            chunks=len(bodies),
            trace=encode_blocks(honest.trace) if honest.trace else b"",
            signed_at_ms=now_ms,
        )


def note_signed(order: HeldOrder, receipt: HeldReceipt, work: Work) -> None:
    """Logs a receipt that is stored."""
    log.info(
        Log.RECEIPT_SIGNED,
        order_hash=to_hex(order.order_hash),
        trace_id=order.trace_id,
        status=receipt.status,
        amount_atoms=receipt.amount_atoms,
        finish=work.finish,
    )

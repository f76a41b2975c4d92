"""From sessions to earnings, by voucher and by claim, as the protocol page and `IEscrow` word it."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from tests.model.abi import keccak
from tests.model.escrow import Sessions
from tests.model.messages import NOBODY, Item, SignedReceipt, Terms, items_hash, short
from tests.model.records import DIRTY, U32, U64, U128, Claim, Refused, Session, fits

PACKED_BYTES: Final = 36


class Status(IntEnum):
    SETTLED = 0
    UNKNOWN_SESSION = 1
    NOT_SETTLER = 2
    STALE = 3
    ABOVE_DEPOSIT = 4
    EXPIRED = 5
    CLOSED = 6
    CLAIM_PENDING = 7


class Settlement(Sessions):
    def settle(self, items: list[Item]) -> None:
        self._settle_items(items, self.caller)

    def settle_for(self, items: list[Item], signature: bytes) -> None:
        if any(item.through_seq > U32 or item.amount > U128 for item in items):
            raise Refused(DIRTY)
        by = self.signer(self.over("Settlement", (items_hash(items),)), signature)
        self._settle_items(items, by)

    def settle_batch(self, vouchers: bytes, receipts_root: bytes, r: bytes, vs: bytes) -> None:
        if len(vouchers) % PACKED_BYTES:
            raise Refused("Escrow_WrongBatch", len(vouchers), PACKED_BYTES)
        key = self.signer(self.over("VoucherBatch", (keccak(vouchers), receipts_root)), r + vs)
        settled = b""
        for at in range(0, len(vouchers), PACKED_BYTES):
            voucher = vouchers[at : at + PACKED_BYTES]
            seq, amount = int.from_bytes(voucher[24:28], "big"), int.from_bytes(voucher[28:], "big")
            if self._settle_one(key, voucher[:24].ljust(32, b"\0"), seq, amount, self.caller):
                settled += voucher
        self.emit("escrow", "BatchSettled", key, receipts_root, settled)

    def _settle_items(self, items: list[Item], by: int) -> None:
        for item in items:
            is_dirty = item.through_seq > U32 or item.amount > U128
            signer = NOBODY if is_dirty else self.signer(self.over("Voucher", item[:4]), item.r + item.vs)
            if self._settle_one(signer, item.session_id, item.through_seq, item.amount, by):
                self.emit("escrow", "VoucherSettled", *item[:4])

    def _settle_one(self, key: int, session_id: bytes, seq: int, amount: int, by: int) -> bool:
        session = self.session(key, session_id)
        status = self._judge(session, session_id, seq, amount, by)
        if status != Status.SETTLED:
            self.emit("escrow", "VoucherSkipped", session_id, status)
            return False
        self._replace_claim(key, session_id)
        self.pay(key, session_id, amount - session.paid)
        self.change_session(key, session_id, through_seq=seq)
        return True

    def _judge(self, session: Session, session_id: bytes, seq: int, amount: int, by: int) -> Status:
        claim = self.claim_of(session_id)
        falls = amount < session.paid or seq < session.through_seq
        rises = amount > session.paid or seq > session.through_seq
        rules: list[tuple[Callable[[], bool], Status]] = [
            (lambda: not session.exists, Status.UNKNOWN_SESSION),
            (lambda: self.tables.nodes[session.node_id].settler != by, Status.NOT_SETTLER),
            (lambda: session.closed, Status.CLOSED),
            (lambda: self.now >= self.grace_end(session), Status.EXPIRED),
            (lambda: amount > session.deposited, Status.ABOVE_DEPOSIT),
            (lambda: falls or not rises, Status.STALE),
            (lambda: claim.pending > 0 and seq < claim.through_seq, Status.CLAIM_PENDING),
        ]
        return next((status for broken, status in rules if broken()), Status.SETTLED)

    def _replace_claim(self, key: int, session_id: bytes) -> None:
        """A voucher that reaches as far takes the place of all that is claimed, held money too."""
        if not self.session(key, session_id).claimed:
            return
        claim = self.claim_of(session_id)
        self.change_claim(session_id, pending=0, held=0, replaced=claim.replaced + 1)
        self.emit("escrow", "ClaimReplaced", session_id, claim.pending + claim.held)
        self.decide(key, session_id, claim.pending + claim.held)

    # ------------------------------------------------------------------------------------ what claims use too

    def change_claim(self, session_id: bytes, **changes: int) -> None:
        claim = self.claim_of(session_id)
        fields = {name: getattr(claim, name) for name in Claim.__slots__}
        self.tables.claims[short(session_id)] = Claim(**(fields | changes))

    def pay(self, key: int, session_id: bytes, amount: int) -> None:
        session = self.session(key, session_id)
        self.change_session(key, session_id, paid=fits(session.paid + amount, U64))
        self.change_node(session.node_id, earnings=self.tables.nodes[session.node_id].earnings + amount)

    def decide(self, key: int, session_id: bytes, amount: int) -> None:
        """So much is not claimed any more, and no stake stands behind it."""
        claim = self.claim_of(session_id)
        self.change_session(key, session_id, claimed=claim.pending + claim.held > 0)
        self.unlock_stake(self.tables.nodes[self.session(key, session_id).node_id].owner, amount)


class Model(Settlement):
    """The whole market."""

    def claim(self, terms: Terms, receipts: list[SignedReceipt]) -> None:
        session_id, session = self.existing(terms)
        self._require_claimable(session_id, session)
        before = self.claim_of(session_id)
        total, through_seq, hashes = self._read(terms, session_id, session, receipts)
        if total == 0:
            raise Refused("Escrow_ZeroAmount")
        left = session.deposited - session.paid - before.held
        if total > left:
            raise Refused("Escrow_AboveSession", total, left)
        final_at = self.now + self.rules.challenge_seconds
        self.tables.claims[short(session_id)] = Claim(
            pending=total,
            held=before.held,
            through_seq=through_seq,
            replaced=before.replaced,
            final_at=final_at,
            receipts_hash=keccak(b"".join(hashes)),
        )
        self.change_session(terms.key, session_id, claimed=True)
        self.emit("escrow", "Claimed", session_id, through_seq, total, final_at, hashes)
        self.lock_stake(self.tables.nodes[session.node_id].owner, total)

    def finalise(self, terms: Terms) -> None:
        session_id, _ = self.existing(terms)
        claim = self.claim_of(session_id)
        if claim.pending == 0:
            raise Refused("Escrow_NoClaim", session_id)
        if self.now < claim.final_at:
            raise Refused("Escrow_TooEarly", self.now, claim.final_at)
        self.change_claim(session_id, pending=0)
        self.pay(terms.key, session_id, claim.pending)
        self._end_orders(terms.key, session_id, claim.pending)
        self.decide(terms.key, session_id, claim.pending)

    def hold(self, session_id: bytes, key: int, receipt: bytes, amount: int, receipts: list[bytes]) -> None:
        self._court_of_escrow_only()
        claim = self.claim_of(session_id)
        if claim.pending == 0 or self.now >= claim.final_at:
            raise Refused("Escrow_NoClaim", session_id)
        if keccak(b"".join(receipts)) != claim.receipts_hash or receipt not in receipts:
            raise Refused("Escrow_NotClaimed", receipt)
        pending = fits(claim.pending - amount, U64)
        self.change_claim(session_id, pending=pending, held=fits(claim.held + amount, U64))
        self.emit("escrow", "ClaimHeld", session_id, receipt, amount)
        if pending == 0:
            self._end_orders(key, session_id, 0)

    def resolve(self, session_id: bytes, key: int, buyer: int, amount: int, is_paid: bool) -> None:
        self._court_of_escrow_only()
        self.change_claim(session_id, held=fits(self.claim_of(session_id).held - amount, U64))
        if is_paid:
            self.pay(key, session_id, amount)
        elif self.session(key, session_id).closed:
            self.add_to_account(buyer, amount)
        self.emit("escrow", "ClaimResolved", session_id, amount, is_paid)
        self.decide(key, session_id, amount)

    # ---------------------------------------------------------------------------------------------- helpers

    def _end_orders(self, key: int, session_id: bytes, earned: int) -> None:
        """Nothing of the claim waits any more: every order up to its last has ended, but those held."""
        through_seq = self.claim_of(session_id).through_seq
        self.change_session(key, session_id, through_seq=through_seq)
        paid = self.session(key, session_id).paid
        self.emit("escrow", "ClaimFinalised", session_id, through_seq, earned, paid)

    def _require_claimable(self, session_id: bytes, session: Session) -> None:
        settler = self.tables.nodes[session.node_id].settler
        if self.caller != settler:
            raise Refused("Escrow_NotSettler", self.caller, settler)
        if session.closed:
            raise Refused("Escrow_SessionClosed", session_id)
        if self.now >= self.grace_end(session):
            raise Refused("Escrow_SessionOver", self.now, self.grace_end(session))
        if self.claim_of(session_id).pending > 0:
            raise Refused("Escrow_ClaimPending", session_id)

    def _read(
        self, terms: Terms, session_id: bytes, session: Session, receipts: list[SignedReceipt]
    ) -> tuple[int, int, list[bytes]]:
        total, through_seq, hashes = 0, session.through_seq, []
        for job in receipts:
            if job.order.seq <= through_seq:
                raise Refused("ReceiptReader_WrongSeq", job.order.seq, through_seq)
            through_seq = job.order.seq
            hashes.append(self._check(terms, session_id, session, job))
            total += job.receipt.amount
        return total, through_seq, hashes

    def _check(self, terms: Terms, session_id: bytes, session: Session, job: SignedReceipt) -> bytes:
        order_hash = self.over("Order", job.order)
        for got, wanted in ((job.order.session_id, session_id), (job.receipt.order_hash, order_hash)):
            if got != wanted:
                raise Refused("ReceiptReader_WrongReference", got, wanted)
        is_free = job.receipt.status == 0 or job.receipt.finished_at_ms > job.order.deadline_ms
        most = 0 if is_free else job.order.max_amount
        if job.receipt.amount > most:
            raise Refused("ReceiptReader_AboveOrder", job.receipt.amount, most)
        receipt_hash = self.over("Receipt", job.receipt)
        signed = (
            (order_hash, job.order_signature, terms.key),
            (receipt_hash, job.receipt_signature, self.node_signer(session)),
        )
        for over, signature, wanted_signer in signed:
            signer = self.signer(over, signature)
            if signer == NOBODY or signer != wanted_signer:
                raise Refused("ReceiptReader_WrongSigner", signer, wanted_signer)
        return receipt_hash

    def _court_of_escrow_only(self) -> None:
        if self.caller != self.places.court:
            raise Refused("Escrow_NotCourt", self.caller, self.places.court)

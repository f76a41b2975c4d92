"""Asks the chain to pay receipts no voucher covers: find → lock stake → claim → wait → finalise → note."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from marketplace.chain import calls
from marketplace.chain.calls import Call, SignedJob
from marketplace.chain.deployment import Deployment
from marketplace.protocol.errors import BadRequest, ChainTrouble
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open, Order, Receipt
from marketplace.protocol.transactions import TxRecord
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import HeldClaim, HeldSession, Ledger, UnpaidJob, UnpaidSession
from worker.settle.intents import CLAIM_INTENT, FINALISE_INTENT, fresh_intent
from worker.settle.limits import SettleLimits
from worker.settle.rules import ClaimNow, Unpaid, claimable, has_ended, look_due, most_valuable
from worker.settle.sessions import SessionBook

if TYPE_CHECKING:
    from marketplace.chain.client import ClaimState, NodeState, ProviderState

log = get_logger(__name__)


class ReadsClaims(Protocol):
    """What is needed of the chain beside sessions."""

    def node(self, node_id: int) -> NodeState | None:
        """A node: its owner, and its earnings."""

    def provider(self, owner: str) -> ProviderState:
        """A provider's stake."""

    def claim(self, session_id: bytes) -> ClaimState | None:
        """What is claimed of a session and not decided."""


class SendsCalls(Protocol):
    """What is needed of the sender."""

    def send(self, intent: str, call: Call, trace_ids: str = "") -> TxRecord:
        """Signs, persists, broadcasts; the same intent finds the same record."""


class Claimer:
    """The settler's part for receipts without a voucher; called while nothing of its key is pending."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        chain: ReadsClaims,
        sessions: SessionBook,
        sender: SendsCalls,
        deployment: Deployment,
        limits: SettleLimits,
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._chain = chain
        self._sessions = sessions
        self._sender = sender
        self._deployment = deployment
        self._limits = limits
        self._now_ms = now_ms
        self._told: set[tuple[bytes, str]] = set()

    def look(self) -> None:
        """Reads waiting claims off the chain and notes what became of them."""
        waiting = self._ledger.claims.waiting()
        sessions = self._ledger.sessions.many(claim.session_id for claim in waiting)
        for claim in waiting:
            session = sessions.get(claim.session_id)
            if look_due(
                pending_atoms=claim.pending_atoms,
                final_at=claim.final_at,
                is_settled=session is not None and session.through_seq >= claim.through_seq,
                read_at_ms=claim.read_at_ms,
                every_ms=self._limits.claim_look_ms,
                now_ms=self._now_ms(),
            ):
                with self._alone(claim.session_id):
                    self._look(claim)

    def send(self) -> int:
        """Sends what is to be finalised and what is to be claimed now; gives the transactions sent.

        Killed at any point, the next run does the rest: an intent is signed once, and `look` finds a claim
        that the chain has. Raises `ChainTrouble` when the node's stake cannot be read.
        """
        return self._finalise_due() + self._claim_due()

    def _look(self, claim: HeldClaim) -> None:
        # The claim first: were it finalised in between, an older session would look as if it never had been.
        found = self._chain.claim(claim.session_id)
        session = self._sessions.refresh(claim.session_id, claim.key)
        if session is None:
            # Its opening was reorganised away; it may come back.
            return
        now = ClaimNow(
            pending_atoms=found.pending_atoms if found else 0,
            held_atoms=found.held_atoms if found else 0,
            final_at=found.final_at if found else 0,
            settled_seq=session.through_seq,
            expires_at=session.expires_at,
        )
        now_ms = self._now_ms()
        seen = replace(
            claim,
            pending_atoms=now.pending_atoms,
            held_atoms=now.held_atoms,
            paid_atoms=session.paid_atoms - claim.paid_before_atoms,
            final_at=now.final_at or (claim.final_at if session.through_seq >= claim.through_seq else 0),
            read_at_ms=now_ms,
            ended=has_ended(
                now,
                through_seq=claim.through_seq,
                was_seen=claim.final_at > 0,
                grace_seconds=self._deployment.grace_seconds,
                now_ms=now_ms,
            ),
        )
        self._ledger.claims.note(seen, settled_seq=session.through_seq)
        _tell(claim, seen)

    def _finalise_due(self) -> int:
        now = self._now_ms() // 1000
        sent = 0
        for claim in self._ledger.claims.waiting():
            if claim.pending_atoms and now >= claim.final_at:
                call = calls.finalise(self._deployment, Open.decode(claim.terms))
                base = f"{FINALISE_INTENT}{to_hex(claim.session_id)}:{claim.through_seq}"
                with self._alone(claim.session_id):
                    sent += self._send(claim.session_id, base, call)
        return sent

    def _claim_due(self) -> int:
        due = self._due()
        if not due:
            return 0
        free_atoms, sent = self._free_stake_atoms(), 0
        for unpaid in due:
            with self._alone(unpaid.session_id):
                claimed_atoms = self._claim(unpaid, free_atoms)
                free_atoms -= claimed_atoms
                sent += claimed_atoms > 0
        return sent

    def _due(self) -> list[UnpaidSession]:
        limits, grace, now_ms = self._limits, self._deployment.grace_seconds, self._now_ms()
        if limits.claim_min_atoms <= 0:
            return []
        now = now_ms // 1000
        found = self._ledger.claims.unpaid(expired_after=now - grace, expired_by=now)
        chosen = claimable(
            [_candidate(unpaid) for unpaid in found],
            min_atoms=limits.claim_min_atoms,
            grace_seconds=grace,
            margin_seconds=limits.claim_margin_seconds,
            unconfirmed_seconds=limits.claim_unconfirmed_seconds,
            now_ms=now_ms,
        )
        by_session = {unpaid.session_id: unpaid for unpaid in found}
        return [by_session[session_id] for session_id in chosen]

    def _free_stake_atoms(self) -> int:
        node = self._chain.node(self._limits.node_id)
        if node is None:
            return 0
        provider = self._chain.provider(node.owner)
        return max(0, provider.staked_atoms - provider.locked_atoms)

    def _claim(self, unpaid: UnpaidSession, free_atoms: int) -> int:
        """Gives the atoms claimed; 0 when nothing was sent."""
        found = self._chain.claim(unpaid.session_id)
        session = self._sessions.refresh(unpaid.session_id, unpaid.key)
        if session is None or session.closed or (found and found.pending_atoms):
            return 0
        held_atoms = found.held_atoms if found else 0
        left_atoms = session.deposited_atoms - session.paid_atoms - held_atoms
        terms = self._sessions.terms(unpaid.session_id)
        if terms is None:
            self._pass_over(
                unpaid.session_id, "the chain does not show the session's terms", unpaid.owed_atoms
            )
            return 0
        jobs = self._jobs(session, free_atoms=free_atoms, left_atoms=left_atoms)
        if not jobs or self._ledger.claims.voucher_waits(unpaid.session_id):
            # A voucher that came just now took its jobs out of these; a claim first would make it stale.
            return 0
        amount_atoms = sum(job.amount_atoms for job in jobs)
        claim = HeldClaim(
            session_id=unpaid.session_id,
            key=unpaid.key,
            terms=terms.encode(),
            through_seq=jobs[-1].seq,
            claimed_atoms=amount_atoms,
            paid_before_atoms=session.paid_atoms,
            made_at_ms=self._now_ms(),
            held_atoms=held_atoms,
        )
        # Before it is sent: without the terms nobody could finalise it.
        self._ledger.claims.put(claim)
        call = calls.claim(self._deployment, terms, [_signed(job) for job in jobs])
        base = f"{CLAIM_INTENT}{to_hex(claim.session_id)}:{claim.through_seq}"
        traces = ",".join(dict.fromkeys(job.trace_id for job in jobs))
        return amount_atoms if self._send(claim.session_id, base, call, traces) else 0

    def _jobs(self, session: HeldSession, *, free_atoms: int, left_atoms: int) -> list[UnpaidJob]:
        """What one claim can hold of the unpaid jobs; none when that is not worth its gas."""
        most = self._limits.claim_max_receipts
        owed = self._ledger.claims.owed(session.session_id, after_seq=session.through_seq)
        seqs = most_valuable(owed, most=most, limit_atoms=min(free_atoms, left_atoms))
        jobs = self._ledger.claims.jobs(session.session_id, seqs)
        amount_atoms = sum(job.amount_atoms for job in jobs)
        if amount_atoms < self._limits.claim_min_atoms:
            jobs, amount_atoms = [], 0
        if len(seqs) < len(owed):
            reason = "one claim holds no more receipts"
            if len(seqs) < most:
                reason = f"the {'free stake' if free_atoms < left_atoms else 'session'} covers no more"
            owed_atoms = sum(amount for _, amount in owed)
            self._pass_over(session.session_id, reason, owed_atoms - amount_atoms)
        return jobs

    def _send(self, session_id: bytes, base: str, call: Call, trace_ids: str = "") -> bool:
        try:
            self._sender.send(fresh_intent(self._ledger.transactions, base), call, trace_ids)
        except BadRequest as refused:
            # It concerns this session; the others, and what was earned otherwise, go on.
            self._pass_over(session_id, f"{call.what}: {refused.detail}", 0)
            return False
        return True

    @contextmanager
    def _alone(self, session_id: bytes) -> Iterator[None]:
        """Keeps the chain's trouble with one session from the others; the next run tries it again."""
        try:
            yield
        except ChainTrouble as trouble:
            log.warning(Log.CHAIN_TROUBLE, session_id=to_hex(session_id), reason=trouble.detail)

    def _pass_over(self, session_id: bytes, reason: str, left_out_atoms: int) -> None:
        if (session_id, reason) in self._told:
            return
        self._told.add((session_id, reason))
        log.warning(
            Log.CLAIM_SHORT, session_id=to_hex(session_id), reason=reason, left_out_atoms=left_out_atoms
        )


def _tell(before: HeldClaim, seen: HeldClaim) -> None:
    name = to_hex(seen.session_id)
    if seen.final_at and not before.final_at:
        log.info(Log.CLAIM_PENDING, session_id=name, pending_atoms=seen.pending_atoms, final_at=seen.final_at)
    if seen.held_atoms > before.held_atoms:
        log.warning(Log.CLAIM_HELD, session_id=name, held_atoms=seen.held_atoms)
    if seen.ended:
        log.info(
            Log.CLAIM_ENDED,
            session_id=name,
            claimed_atoms=seen.claimed_atoms,
            paid_atoms=seen.paid_atoms,
        )


def _candidate(unpaid: UnpaidSession) -> Unpaid:
    return Unpaid(
        session_id=unpaid.session_id,
        expires_at=unpaid.expires_at,
        closed=unpaid.closed,
        owed_atoms=unpaid.owed_atoms,
        unfinished=unpaid.unfinished,
        unconfirmed=unpaid.unconfirmed,
        voucher_waits=unpaid.voucher_waits,
        claim_waits=unpaid.claim_waits,
    )


def _signed(job: UnpaidJob) -> SignedJob:
    return SignedJob(
        order=Order.decode(job.order),
        order_signature=job.order_signature,
        receipt=Receipt.decode(job.receipt),
        receipt_signature=job.receipt_signature,
    )

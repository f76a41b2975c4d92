"""Turns vouchers, and receipts without one, into earnings: load → decide → send → confirm → note."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from marketplace.chain import calls
from marketplace.chain.calls import Call
from marketplace.chain.deployment import Deployment
from marketplace.protocol.errors import ChainTrouble, ErrorCode
from marketplace.protocol.hexes import from_hex, keccak, to_hex
from marketplace.protocol.messages import SettleStatus, Voucher
from marketplace.protocol.transactions import TxRecord, TxState
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import HeldSession, HeldVoucher, Ledger
from worker.settle.claims import Claimer, ReadsClaims, SendsCalls
from worker.settle.intents import COLLECT_INTENT, SETTLE_INTENT, fresh_intent
from worker.settle.limits import SettleLimits
from worker.settle.rules import HOPELESS, Candidate, is_over, plan
from worker.settle.sessions import SessionBook

if TYPE_CHECKING:
    from marketplace.chain.client import ChainEvent

_POLL_SECONDS: Final = 0.5

log = get_logger(__name__)


class ReadsChain(ReadsClaims, Protocol):
    """What is needed of the chain beside sessions."""

    def events(self, first: int, last: int) -> list[ChainEvent]:
        """Escrow events of these blocks."""


class Sends(SendsCalls, Protocol):
    """What is needed of the sender of the settler's transactions."""

    @property
    def address(self) -> str:
        """The settler."""

    def step(self) -> list[TxRecord]:
        """Moves pending records on; gives those that changed."""


class Settler:
    """Owns the settler's key; exactly one process runs one."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        chain: ReadsChain,
        sessions: SessionBook,
        sender: Sends,
        deployment: Deployment,
        limits: SettleLimits,
        now_ms: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        self._ledger = ledger
        self._chain = chain
        self._sessions = sessions
        self._sender = sender
        self._deployment = deployment
        self._limits = limits
        self._now_ms = now_ms
        self._sleep = sleep
        self._claims = Claimer(
            ledger=ledger,
            chain=chain,
            sessions=sessions,
            sender=sender,
            deployment=deployment,
            limits=limits,
            now_ms=now_ms,
        )

    def run(self, *, everything: bool = False) -> int:
        """Settles what is due, claims what no voucher pays, collects; gives the vouchers settled.

        Safe to repeat and to kill at any point: the next run finds the signed transaction and goes on.

        Raises:
            ChainTrouble: the chain does not answer, or did not confirm in time.
            BadRequest: the settler cannot pay the gas.
        """
        settled = self._confirm()
        while batch := self._batch(everything=everything):
            self._send(batch)
            paid = self._confirm()
            settled += paid
            if len(batch) < self._limits.policy.max_items or not paid:
                break
        settled += self._claim()
        self._collect()
        return settled

    def _claim(self) -> int:
        self._claims.look()
        if not self._claims.send():
            return 0
        settled = self._confirm()
        self._claims.look()
        return settled

    def _batch(self, *, everything: bool) -> list[HeldVoucher]:
        vouchers = self._ledger.vouchers.unsettled()
        known = self._ledger.sessions.many(voucher.session_id for voucher in vouchers)
        if not self._plan(vouchers, known, everything=everything):
            self._give_up(vouchers, known)
            return []
        for voucher in vouchers:
            fresh = self._sessions.refresh(voucher.session_id, voucher.key)
            if fresh is None:
                # Its opening was reorganised away; it may come back.
                known.pop(voucher.session_id, None)
                continue
            known[voucher.session_id] = fresh
            if fresh.paid_atoms >= voucher.amount_atoms:
                self._note_paid(voucher.session_id, fresh.paid_atoms, voucher.through_seq)
        self._give_up(vouchers, known)
        return self._plan(self._ledger.vouchers.unsettled(), known, everything=everything)

    def _plan(
        self, vouchers: Sequence[HeldVoucher], known: Mapping[bytes, HeldSession], *, everything: bool
    ) -> list[HeldVoucher]:
        # The escrow takes no voucher below a claim that waits; one above it takes the claim's place.
        claimed = {c.session_id: c.through_seq for c in self._ledger.claims.waiting() if c.pending_atoms}
        candidates = [
            _candidate(voucher, known[voucher.session_id])
            for voucher in vouchers
            if voucher.session_id in known and voucher.through_seq >= claimed.get(voucher.session_id, 0)
        ]
        chosen = plan(
            candidates,
            self._limits.policy,
            grace_seconds=self._deployment.grace_seconds,
            now_ms=self._now_ms(),
            everything=everything,
        )
        by_session = {voucher.session_id: voucher for voucher in vouchers}
        return [by_session[session_id] for session_id in chosen]

    def _give_up(self, vouchers: Sequence[HeldVoucher], known: Mapping[bytes, HeldSession]) -> None:
        now_ms = self._now_ms()
        for voucher in vouchers:
            session = known.get(voucher.session_id)
            if session is None:
                continue
            over = is_over(session.expires_at, grace_seconds=self._deployment.grace_seconds, now_ms=now_ms)
            if session.closed or over:
                reason = SettleStatus.CLOSED if session.closed else SettleStatus.EXPIRED
                self._note_skipped(voucher.session_id, reason)

    def _send(self, batch: Sequence[HeldVoucher]) -> None:
        items = [(Voucher.decode(voucher.message), voucher.signature) for voucher in batch]
        traces = ",".join(dict.fromkeys(t for v in batch for t in v.trace_ids.split(",") if t))
        call = calls.settle(self._deployment, items)
        self._sender.send(self._intent(call), call, traces)

    def _intent(self, call: Call) -> str:
        return fresh_intent(self._ledger.transactions, SETTLE_INTENT + to_hex(keccak(call.data)))

    def _confirm(self) -> int:
        """Waits until nothing of this settler is pending; gives the sessions paid meanwhile."""
        settled, polls_left = 0, int(self._limits.confirm_seconds / _POLL_SECONDS)
        while self._ledger.transactions.pending(self._sender.address):
            for record in self._sender.step():
                if record.state is TxState.CONFIRMED and record.intent.startswith(SETTLE_INTENT):
                    settled += self._note(record)
            if not self._ledger.transactions.pending(self._sender.address):
                break
            if polls_left <= 0:
                raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "a transaction is not confirmed yet")
            polls_left -= 1
            self._sleep(_POLL_SECONDS)
        return settled

    def _note(self, record: TxRecord) -> int:
        if record.block_number is None:
            return 0
        settled = 0
        for event in self._chain.events(record.block_number, record.block_number):
            if event.tx_hash != record.tx_hash:
                continue
            if event.name == "VoucherSettled":
                session_id = from_hex(event.args["sessionId"], 32)
                self._note_paid(session_id, int(event.args["paid"]), int(event.args["throughSeq"]))
                settled += 1
            elif event.name == "VoucherSkipped":
                status = SettleStatus(int(event.args["status"]))
                self._note_skipped(from_hex(event.args["sessionId"], 32), status)
        return settled

    def _note_paid(self, session_id: bytes, paid_atoms: int, through_seq: int) -> None:
        self._ledger.vouchers.paid(
            session_id, amount_atoms=paid_atoms, through_seq=through_seq, now_ms=self._now_ms()
        )
        held = self._ledger.sessions.get(session_id)
        if held is not None and held.paid_atoms < paid_atoms:
            self._ledger.sessions.put(replace(held, paid_atoms=paid_atoms, through_seq=through_seq))
        log.info(
            Log.JOB_SETTLED, session_id=to_hex(session_id), paid_atoms=paid_atoms, through_seq=through_seq
        )

    def _note_skipped(self, session_id: bytes, status: SettleStatus) -> None:
        retry_at_ms = None if status in HOPELESS else self._now_ms() + self._limits.retry_ms
        self._ledger.vouchers.skip(session_id, status.name.lower(), retry_at_ms=retry_at_ms)
        log.warning(
            Log.VOUCHER_SKIPPED,
            session_id=to_hex(session_id),
            status=status.name.lower(),
            given_up=retry_at_ms is None,
        )

    def _collect(self) -> None:
        if self._limits.collect_min_atoms <= 0:
            return
        node = self._chain.node(self._limits.node_id)
        if node is None or node.earnings_atoms < self._limits.collect_min_atoms:
            return
        # A nonce is used once, so each sweep has an intent of its own.
        nonce = self._ledger.transactions.next_nonce(self._sender.address)
        call = calls.collect(self._deployment, [self._limits.node_id])
        self._sender.send(f"{COLLECT_INTENT}{self._limits.node_id}:{nonce}", call)
        self._confirm()


def _candidate(voucher: HeldVoucher, session: HeldSession) -> Candidate:
    return Candidate(
        session_id=voucher.session_id,
        amount_atoms=voucher.amount_atoms,
        paid_atoms=session.paid_atoms,
        held_since_ms=voucher.held_since_ms,
        retry_at_ms=voucher.retry_at_ms,
        expires_at=session.expires_at,
        closed=session.closed,
    )

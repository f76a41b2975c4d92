"""Sessions by transactions of one's own, without a gateway: open, top up, end, and what is claimed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from marketplace.chain import calls
from marketplace.chain.client import ClaimState, SessionState
from marketplace.client.payer import Payer
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol.batches import batch_of
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Close, Open, TopUp, Voucher
from marketplace.protocol.signing import Signer
from marketplace.protocol.transactions import TxRecord

OPEN_WITHIN_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """A session as the chain has it; `final_at` of its claim is when it can be finalised."""

    session_id: bytes
    terms: Open
    state: SessionState
    claim: ClaimState | None
    returns_at: int

    @property
    def free_atoms(self) -> int:
        """What is neither paid nor claimed; it returns when the session ends."""
        claimed = self.claim.pending_atoms + self.claim.held_atoms if self.claim else 0
        return 0 if self.state.closed else self.state.deposited_atoms - self.state.paid_atoms - claimed


class OwnSessions:
    """Sessions that a wallet opens and ends with its own gas.

    Args:
        payer: whose account pays; the wallet's own unless named.
    """

    def __init__(self, wallet: BuyerWallet, payer: Payer | None = None) -> None:
        self.wallet, self.payer = wallet, payer or Payer.own(wallet.signer)

    def open(self, node_id: int, amount_atoms: int, *, key: str | None = None, seconds: int) -> Open:
        """Opens a session for `key`, the payer's signer unless named; gives its terms.

        Raises:
            BadRequest: the escrow refuses: caps, node list, account.
        """
        now = self.wallet.chain.head().timestamp
        terms = Open(
            buyer=self.payer.buyer,
            key=key or self.payer.signer.address,
            node_id=node_id,
            amount_atoms=amount_atoms,
            open_before=now + OPEN_WITHIN_SECONDS,
            expires_at=now + min(seconds, self.wallet.deployment.max_session_seconds),
            salt=secrets.token_bytes(32),
        )
        signature = self.payer.sign(terms, self.wallet.deployment.domain, node_id)
        self.wallet.send(calls.open_sessions(self.wallet.deployment, [(terms, signature)]))
        return terms

    def top_up(self, terms: Open, added_atoms: int) -> TxRecord:
        """Raises what a session holds. Raises as `open`."""
        domain = self.wallet.deployment.domain
        session_id = terms.digest(domain)
        total = self._state(session_id, terms.key).deposited_atoms + added_atoms
        wish = TopUp(session_id=session_id, deposited_atoms=total)
        signature = self.payer.sign(wish, domain, terms.node_id)
        return self.wallet.send(calls.top_up(self.wallet.deployment, terms, total, signature))

    def close(self, terms: Open, consent: Close, node_signature: bytes) -> TxRecord:
        """Ends a session early with its node's consent; the rest returns to the account."""
        call = calls.close(self.wallet.deployment, terms, consent.min_paid_atoms, node_signature)
        return self.wallet.send(call)

    def expire(self, terms: Open) -> TxRecord:
        """Ends a session whose grace is over; the rest returns to the account."""
        return self.wallet.send(calls.expire(self.wallet.deployment, [terms]))

    def finalise(self, terms: Open) -> TxRecord:
        """Ends the wait of a claim whose window is over: what nobody disputed is paid."""
        return self.wallet.send(calls.finalise(self.wallet.deployment, terms))

    def view(self, session_id: bytes) -> SessionView:
        """A session and its claim as the chain has them. Raises as `terms`."""
        terms = self.terms(session_id)
        return SessionView(
            session_id=session_id,
            terms=terms,
            state=self._state(session_id, terms.key),
            claim=self.wallet.chain.claim(session_id),
            returns_at=terms.expires_at + self.wallet.deployment.grace_seconds,
        )

    def terms(self, session_id: bytes) -> Open:
        """A session's terms, from the transaction that opened it.

        Raises:
            BadRequest: the chain knows no such session, or a contract opened it for somebody.
        """
        found = self.wallet.chain.terms_of(session_id)
        if found is None:
            raise _unknown(session_id)
        return found

    def _state(self, session_id: bytes, key: str) -> SessionState:
        state = self.wallet.chain.session(session_id, key)
        if state is None:
            raise _unknown(session_id)
        return state


def sign_batch(key: Signer, vouchers: Sequence[Voucher], domain: Domain) -> bytes:
    """One signature of a key over vouchers of many of its sessions, in this order."""
    return key.sign(batch_of(vouchers), domain)


def _unknown(session_id: bytes) -> BadRequest:
    return BadRequest(
        ErrorCode.UNKNOWN_SESSION,
        f"the terms of session {to_hex(session_id)} are not on the chain",
        hint="watt session list",
    )

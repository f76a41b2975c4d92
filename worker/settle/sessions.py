"""Sessions as the node needs them: from the ledger while fresh enough, else from the chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from marketplace.protocol.messages import Open
from worker.ledger import HeldOpening, HeldSession, Ledger

if TYPE_CHECKING:
    from marketplace.chain.client import SessionState


class ReadsSessions(Protocol):
    """What is needed of the chain."""

    def session(self, session_id: bytes, key: str) -> SessionState | None:
        """A session under its key, found by the first 24 bytes of its id; None when there is none."""

    def terms_of(self, session_id: bytes) -> Open | None:
        """The terms of the session with this whole id; None: never opened, or the chain hides them."""

    def opened(self, session_id: bytes) -> bool:
        """Whether a session with this whole id was ever opened."""


class SessionBook:
    """Read-through cache of sessions, kept in the ledger; only such as were opened under their whole id."""

    def __init__(
        self, ledger: Ledger, chain: ReadsSessions, now_ms: Callable[[], int], *, max_age_ms: int
    ) -> None:
        self._ledger = ledger
        self._chain = chain
        self._now_ms = now_ms
        self._max_age_ms = max_age_ms

    def get(self, session_id: bytes, key: str) -> HeldSession | None:
        """The session under this key, at most `max_age_ms` old; None when there is none.

        Raises:
            ChainTrouble: it is not known well enough, and the chain does not answer.
        """
        held = self._ledger.sessions.get(session_id)
        if held and held.key == key and self._now_ms() - held.read_at_ms <= self._max_age_ms:
            return held
        return self.refresh(session_id, key)

    def refresh(self, session_id: bytes, key: str) -> HeldSession | None:
        """The session as the chain has it now; None when there is none. Raises `ChainTrouble`."""
        read_at_ms = self._now_ms()
        state = self._chain.session(session_id, key)
        if state is None or not self._was_opened(session_id):
            return None
        fresh = HeldSession(
            session_id=session_id,
            key=key,
            node_id=state.node_id,
            key_epoch=state.key_epoch,
            deposited_atoms=state.deposited_atoms,
            paid_atoms=state.paid_atoms,
            through_seq=state.through_seq,
            expires_at=state.expires_at,
            closed=state.closed,
            read_at_ms=read_at_ms,
        )
        self._ledger.sessions.put(fresh)
        return fresh

    def terms(self, session_id: bytes) -> Open | None:
        """The terms a session was opened with; None when the chain hides them. May raise `ChainTrouble`."""
        known = self._ledger.openings.get(session_id)
        if known is not None and known.terms is not None:
            return Open.decode(known.terms)
        return self._chain.terms_of(session_id)

    def _was_opened(self, session_id: bytes) -> bool:
        """Whether this very id was opened; asks the chain until it was.

        The escrow keeps sessions under the first 24 bytes of their ids, so it answers for every id that
        begins alike, and settles vouchers that name it. Taken for sessions of their own, such ids would be
        worth the deposit again and again.
        """
        known = self._ledger.openings.get(session_id)
        if known is not None:
            # Two sessions never begin alike (decision 10).
            return known.session_id == session_id
        terms = self._chain.terms_of(session_id)
        if terms is None and not self._chain.opened(session_id):
            return False
        opening = HeldOpening(session_id=session_id, terms=terms.encode() if terms else None)
        self._ledger.openings.put(opening)
        return True

"""Sessions as the node needs them: from the ledger while fresh enough, else from the chain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from worker.ledger import HeldSession, Ledger

if TYPE_CHECKING:
    from marketplace.chain.client import SessionState


class ReadsSessions(Protocol):
    """What is needed of the chain."""

    def session(self, session_id: bytes, key: str) -> SessionState | None:
        """A session under its key; None when there is none. May raise `ChainTrouble`."""


class SessionBook:
    """Read-through cache of sessions, kept in the ledger."""

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
        """The session as the chain has it now. Raises `ChainTrouble`."""
        read_at_ms = self._now_ms()
        state = self._chain.session(session_id, key)
        if state is None:
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

"""A journal in memory, for one-shot commands that wait for each transaction."""

from __future__ import annotations

import dataclasses
import threading

from marketplace.protocol.errors import ErrorCode, LostRace
from marketplace.protocol.transactions import TxRecord, TxState

_OPEN = frozenset({TxState.SIGNED, TxState.MINED})


class MemoryJournal:
    """`TxJournal` that a crash forgets: never where a repeated payment would hurt."""

    def __init__(self) -> None:
        self._records: dict[str, TxRecord] = {}
        self._lock = threading.Lock()

    def find(self, intent: str) -> TxRecord | None:
        """The record of an intent."""
        return self._records.get(intent)

    def add(self, record: TxRecord) -> None:
        """Keeps a fresh record; raises `LostRace` when intent or (sender, nonce) is taken."""
        with self._lock:
            nonces = {(r.sender, r.nonce) for r in self._records.values()}
            if record.intent in self._records or (record.sender, record.nonce) in nonces:
                raise LostRace(
                    ErrorCode.INTERNAL,
                    f"{record.intent} or nonce {record.nonce} is taken",
                    nonce=record.nonce,
                )
            self._records[record.intent] = record

    def mark(
        self, intent: str, state: TxState, *, block_number: int | None, block_hash: bytes | None
    ) -> None:
        """Moves a record on, or back after a reorganisation."""
        with self._lock:
            self._records[intent] = dataclasses.replace(
                self._records[intent], state=state, block_number=block_number, block_hash=block_hash
            )

    def pending(self, sender: str) -> list[TxRecord]:
        """Records of a sender that are signed or mined but not confirmed, by nonce."""
        with self._lock:
            found = [r for r in self._records.values() if r.sender == sender and r.state in _OPEN]
        return sorted(found, key=lambda record: record.nonce)

    def next_nonce(self, sender: str) -> int:
        """One above the highest nonce ever signed here; 0 when none was."""
        with self._lock:
            return max((r.nonce + 1 for r in self._records.values() if r.sender == sender), default=0)

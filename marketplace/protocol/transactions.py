"""What a transaction sender remembers, so that a retry sends the same bytes.

Law: sign → persist the exact bytes → broadcast → confirm by block hash. The journal is the persistence; the
gateway's store and the node's ledger each implement it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class TxState(StrEnum):
    """Life of one signed transaction."""

    SIGNED = "signed"
    MINED = "mined"
    CONFIRMED = "confirmed"
    REVERTED = "reverted"


@dataclass(frozen=True, slots=True, kw_only=True)
class TxRecord:
    """One signed transaction.

    Attributes:
        intent: what it is for, unique; asking for the same intent again finds this record.
        raw: the signed bytes; never rebuilt.
        block_number: where it was last seen mined, with `block_hash`; None while it is not.
        trace_ids: traces of the jobs it pays, comma-separated.
    """

    intent: str
    sender: str
    nonce: int
    raw: bytes
    tx_hash: bytes
    state: TxState
    created_at_ms: int
    block_number: int | None = None
    block_hash: bytes | None = None
    trace_ids: str = ""


class TxJournal(Protocol):
    """Durable list of signed transactions; each call is one committed database transaction."""

    def find(self, intent: str) -> TxRecord | None:
        """The record of an intent."""

    def add(self, record: TxRecord) -> None:
        """Persists a fresh record; raises `LostRace` when intent or (sender, nonce) is taken."""

    def mark(
        self, intent: str, state: TxState, *, block_number: int | None, block_hash: bytes | None
    ) -> None:
        """Moves a record on, or back after a reorganisation."""

    def pending(self, sender: str) -> list[TxRecord]:
        """Records of a sender that are signed or mined but not confirmed, by nonce."""

    def next_nonce(self, sender: str) -> int:
        """One above the highest nonce ever signed here; 0 when none was."""

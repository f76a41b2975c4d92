"""What the SDK needs from outside: a chain to read, a clock, a source of randomness."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio

if TYPE_CHECKING:
    from marketplace.chain.client import ChainEvent, KeyState, NodeState, SessionState, TxSeen


class ChainView(Protocol):
    """The reads of `chain.ChainClient` that a buyer relies on; each may raise `ChainTrouble`."""

    def session(self, session_id: bytes, key: str) -> SessionState | None:
        """A session under its key, found by the first 24 bytes of its id; None: never opened."""

    def opened(self, session_id: bytes) -> bool:
        """Whether a session with this whole id was ever opened."""

    def claimed_receipts(self, session_id: bytes) -> frozenset[str]:
        """Digests, as `0x` hex, of all receipts that were ever claimed of a session."""

    def key(self, buyer: str, key: str) -> KeyState:
        """A key of a buyer; all zero when it never had a grant."""

    def account_atoms(self, buyer: str) -> int:
        """Money of a buyer that is promised to nobody."""

    def node(self, node_id: int) -> NodeState | None:
        """A node with its newest key."""

    def signer_at(self, node_id: int, epoch: int) -> str:
        """Key of a node in one of its epochs."""

    def tx_receipt(self, tx_hash: bytes) -> TxSeen | None:
        """A mined transaction."""

    def events(self, first: int, last: int) -> Sequence[ChainEvent]:
        """Events of escrow and registry in a range of blocks."""


def system_ms() -> int:
    """Unix milliseconds of the system clock."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Clock, sleep and randomness, so that tests can fix all three."""

    now_ms: Callable[[], int] = system_ms
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep
    random_bytes: Callable[[int], bytes] = secrets.token_bytes

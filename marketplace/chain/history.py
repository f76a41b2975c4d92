"""What the escrow's log says about one key, session or claim; for questions people ask now and then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from marketplace.chain.client import ChainClient
from marketplace.chain.codec import ChainEvent, event_topic
from marketplace.protocol.hexes import from_hex, keccak, to_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimMade:
    """One claim of a session.

    Attributes:
        digests: of its receipts, in ascending order of seq.
        final_at: Unix seconds from which it can be finalised; its receipts can be disputed until then.
        is_pending: whether some of it is neither paid nor disputed yet.
    """

    tx_hash: bytes
    digests: tuple[bytes, ...]
    final_at: int
    is_pending: bool


def keys_of(chain: ChainClient, buyer: str) -> list[str]:
    """Keys a buyer ever granted, oldest first, each once."""
    found = _events(chain, [event_topic("Escrow", "KeySet"), _topic(buyer)])
    return list(dict.fromkeys(str(event.args["key"]) for event in found))


def claims_made(chain: ChainClient, session_id: bytes) -> list[ClaimMade]:
    """What was ever claimed of a session, oldest first."""
    now = chain.claim(session_id)
    waiting = now.receipts_hash if now and now.pending_atoms else None
    return [
        _claim_made(e, waiting)
        for e in _events(chain, [event_topic("Escrow", "Claimed"), to_hex(session_id)])
    ]


def disputed_receipts(chain: ChainClient, session_id: bytes) -> frozenset[bytes]:
    """Digests of the receipts of a session that were taken out of a claim by a dispute."""
    found = _events(chain, [event_topic("Escrow", "ClaimHeld"), to_hex(session_id)])
    return frozenset(from_hex(event.args["receiptHash"], 32) for event in found)


def _claim_made(event: ChainEvent, waiting: bytes | None) -> ClaimMade:
    digests = tuple(from_hex(digest, 32) for digest in event.args["receiptHashes"])
    return ClaimMade(
        tx_hash=event.tx_hash,
        digests=digests,
        final_at=event.args["finalAt"],
        is_pending=keccak(b"".join(digests)) == waiting,
    )


def _events(chain: ChainClient, topics: list[Any]) -> list[ChainEvent]:
    return chain.history([chain.deployment.escrow], topics)


def _topic(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")

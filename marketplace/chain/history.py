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


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """Atoms a key's session took out of its buyer's account, and when (Unix seconds)."""

    session_id: bytes
    at: int
    atoms: int


def moves_of(chain: ChainClient, buyer: str, key: str) -> list[Move]:
    """Everything that went into the sessions of one key of a buyer, oldest first."""
    opened = _events(chain, [event_topic("Escrow", "SessionOpened"), None, _topic(buyer)])
    found = [(e, "amount") for e in opened if e.args["key"] == key]
    ids = [str(event.args["sessionId"]) for event, _ in found]
    if ids:
        found += [(e, "added") for e in _events(chain, [event_topic("Escrow", "SessionToppedUp"), ids])]
    found.sort(key=lambda pair: (pair[0].block_number, pair[0].log_index))
    times = {number: _time_of(chain, number) for number in {event.block_number for event, _ in found}}
    return [
        Move(
            session_id=from_hex(event.args["sessionId"], 32),
            at=times[event.block_number],
            atoms=event.args[amount],
        )
        for event, amount in found
    ]


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


def _time_of(chain: ChainClient, number: int) -> int:
    block = chain.block(number)
    return block.timestamp if block is not None else 0


def _topic(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")

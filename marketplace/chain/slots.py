"""Where the escrow keeps what a call is known to touch; `tests/house/snapshots/storage.json` has the layout.

Only for access lists (EIP-2930): a slot named wrongly costs its sender gas and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from marketplace.protocol.batches import SHORT_ID_BYTES
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.hexes import from_hex, keccak
from marketplace.protocol.messages import Open

ACCOUNTS: Final = 2
SESSIONS: Final = 3
NODES: Final = 4
OWNERS: Final = 8
_WORD: Final = 32


def of_sessions(sessions: Iterable[tuple[str, bytes]]) -> tuple[bytes, ...]:
    """Slots of sessions, given as key and session id."""
    return tuple(_session(key, session_id) for key, session_id in sessions)


def of_nodes(node_ids: Iterable[int]) -> tuple[bytes, ...]:
    """Slots of nodes' settlers and earnings."""
    return tuple(_entry(_number(node_id), _number(NODES)) for node_id in node_ids)


def of_opening(opens: Sequence[Open], domain: Domain) -> tuple[bytes, ...]:
    """Slots that opening these sessions touches: accounts, nodes and the sessions themselves."""
    accounts = {_entry(_address(terms.buyer), _number(ACCOUNTS)) for terms in opens}
    owners = {_entry(_number(terms.node_id), _number(OWNERS)) for terms in opens}
    sessions = of_sessions((terms.key, terms.digest(domain)) for terms in opens)
    return (*sorted(accounts | owners), *sessions)


def _session(key: str, session_id: bytes) -> bytes:
    of_key = _entry(_address(key), _number(SESSIONS))
    return _entry(session_id[:SHORT_ID_BYTES].ljust(_WORD, b"\0"), of_key)


def _entry(key: bytes, slot: bytes) -> bytes:
    # Solidity's rule for mappings.
    return keccak(key + slot)


def _address(address: str) -> bytes:
    return from_hex(address.lower(), 20).rjust(_WORD, b"\0")


def _number(number: int) -> bytes:
    return number.to_bytes(_WORD, "big")

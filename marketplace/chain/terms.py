"""A session's terms, found in the transaction that opened it."""

from __future__ import annotations

from typing import Final

from marketplace.chain.codec import ChainEvent
from marketplace.protocol.eip712 import WORD, Domain
from marketplace.protocol.hexes import ZERO32, from_hex
from marketplace.protocol.messages import Open

_FIELDS: Final = 7
# Buyer, key, node and amount; the event has them too.
_KNOWN_FIELDS: Final = 4


def terms_in(data: bytes, opened: ChainEvent, domain: Domain) -> Open | None:
    """The terms of a `SessionOpened` among the bytes of its transaction; None when they are not there.

    Terms are seven words in a row wherever calldata carries them, so they are looked for and not decoded: a
    wallet contract may wrap the call, and the escrow takes calldata that a strict decoder would refuse. What
    is found is what was opened, for its digest is the session's id.
    """
    wanted, head = from_hex(opened.args["sessionId"], 32), _head(opened)
    at = data.find(head)
    while at >= 0:
        found = _read(data[at : at + WORD * _FIELDS])
        if found is not None and found.digest(domain) == wanted:
            return found
        at = data.find(head, at + 1)
    return None


def _head(opened: ChainEvent) -> bytes:
    terms = Open(
        buyer=opened.args["buyer"],
        key=opened.args["key"],
        node_id=opened.args["nodeId"],
        amount_atoms=opened.args["amount"],
        open_before=0,
        expires_at=0,
        salt=ZERO32,
    )
    return terms.encode()[: WORD * _KNOWN_FIELDS]


def _read(data: bytes) -> Open | None:
    try:
        return Open.decode(data)
    except ValueError:
        # The same four words by chance, or by somebody's intent.
        return None

"""Payments whose authorization somebody sent to the token before we could: their tokens lie in a receiver.

The token does not tell a sent authorization from a cancelled one, or from one of the same nonce to somebody
else; its log does: one transaction that used the authorization and moved the amount to the receiver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from marketplace.chain.client import ChainClient
from marketplace.funding import receivers as funding
from marketplace.funding.receivers import Receivers
from marketplace.protocol.hexes import from_hex, keccak, to_hex
from marketplace.store.engine import Store
from marketplace.store.tables import PaymentRow

_USED: Final = to_hex(keccak(b"AuthorizationUsed(address,bytes32)"))
_TRANSFER: Final = to_hex(keccak(b"Transfer(address,address,uint256)"))
# Further back no payment of an open quote can lie; two seconds a block are the fastest chains' pace.
_BLOCKS: Final = 2_000


class Pushed:
    """One turn names every payer whose tokens came and opened nothing; restartable anywhere."""

    def __init__(
        self, chain: ChainClient, store: Store, receivers: Receivers, now_ms: Callable[[], int]
    ) -> None:
        self._chain, self._store, self._receivers, self._now_ms = chain, store, receivers, now_ms

    def step(self) -> int:
        """Asks to open or to return; gives how many payments were found. Raises `ChainTrouble`."""
        with self._store.reading() as tx:
            suspects = funding.suspects(tx, self._now_ms() // 1000)
        arrived = [row for row in suspects if self._came(row)]
        for row in arrived:
            with self._store.transaction() as tx:
                funding.ask_pushed(tx, self._receivers, row, self._now_ms())
        return len(arrived)

    def _came(self, row: PaymentRow) -> bool:
        here, head = self._chain.deployment, self._chain.head().number
        first = max(here.deployed_block, head - _BLOCKS)
        paid = funding.paid_of(row)

        def seen(topics: list[Any]) -> list[dict[str, Any]]:
            return self._chain.long_logs([here.token], first, head, topics)

        used = seen([_USED, _topic(row.payer), to_hex(paid.nonce)])
        moved = seen([_TRANSFER, _topic(row.payer), _topic(row.receiver)]) if used else []
        exact = {log["transactionHash"] for log in moved if int(log["data"], 16) == paid.value_atoms}
        return any(log["transactionHash"] in exact for log in used)


def _topic(address: str) -> str:
    return to_hex(from_hex(address, 20).rjust(32, b"\0"))

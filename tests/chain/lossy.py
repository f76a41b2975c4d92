"""A client that loses broadcasts, and short ways to what sender tests look at."""

from __future__ import annotations

from typing import Any

from marketplace.chain import calls
from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.ethereum import Ethereum
from marketplace.chain.sender import MemoryJournal, Sender
from marketplace.protocol.errors import ChainTrouble, ErrorCode
from tests.hardhat import Chain, key

BUYER = key(1)


class LossyClient(ChainClient):
    """Loses the way to the node before or after the bytes went through."""

    lose = ""
    sent: list[bytes]

    def broadcast(self, raw: bytes) -> None:
        self.sent = [*getattr(self, "sent", []), raw]
        if self.lose == "before":
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "lost before")
        super().broadcast(raw)
        if self.lose == "after":
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "lost after")


def lossy(chain: Chain, lose: str) -> LossyClient:
    client = LossyClient(chain.url, chain.deployment)
    client.lose = lose
    return client


def make(chain: Chain, client: Ethereum, journal: MemoryJournal, **options: Any) -> Sender:
    return Sender(client, BUYER, journal, lambda: 0, **options)


def deposit(chain: Chain, amount: int = 7) -> Call:
    return calls.deposit(chain.deployment, amount)


def deposited(chain: Chain) -> int:
    return chain.client.account_atoms(BUYER.address)

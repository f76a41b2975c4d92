"""The settler of a process, with its own chain client and the one sender of its key."""

from __future__ import annotations

import time
from collections.abc import Callable

from marketplace.chain.client import ChainClient
from marketplace.chain.deployment import Deployment
from marketplace.chain.sender import Sender
from marketplace.protocol.signing import Signer
from worker.ledger import Ledger
from worker.settle.limits import SettleLimits
from worker.settle.sessions import SessionBook
from worker.settle.step import Settler


def build_settler(
    *,
    ledger: Ledger,
    rpc_url: str,
    deployment: Deployment,
    signer: Signer,
    limits: SettleLimits,
    confirmations: int,
    now_ms: Callable[[], int],
) -> Settler:
    """Settler over the real chain. Raises `BadRequest` for a test key off the local chain."""
    chain = ChainClient(rpc_url, deployment)
    return Settler(
        ledger=ledger,
        chain=chain,
        sessions=SessionBook(ledger, chain, now_ms, max_age_ms=0),
        sender=Sender(chain, signer, ledger.transactions, now_ms, confirmations=confirmations),
        deployment=deployment,
        limits=limits,
        now_ms=now_ms,
        sleep=time.sleep,
    )

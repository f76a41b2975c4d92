"""Opens the chain. The one module of the SDK whose import loads web3."""

from __future__ import annotations

from pathlib import Path

from marketplace.chain.client import ChainClient
from marketplace.chain.deployment import Deployment


def connect(rpc_url: str, deployment: Path | Deployment) -> ChainClient:
    """Reads of a deployment, known to be of this very chain.

    Raises:
        ChainTrouble: no answer, or another chain.
        BadRequest: no deployment file.
    """
    where = Deployment.load(deployment) if isinstance(deployment, Path) else deployment
    chain = ChainClient(rpc_url, where)
    chain.check()
    return chain

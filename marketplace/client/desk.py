"""What all parts of one client share: a gateway, a chain, a journal, a key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from marketplace.client.gateway import Gateway
from marketplace.client.journal import Journal
from marketplace.client.views import ChainView, Surroundings
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.signing import Signer

if TYPE_CHECKING:
    from marketplace.chain.deployment import Deployment

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One key's workplace.

    Attributes:
        key: signs orders and vouchers.
        journal: what the key has promised; keep it as long as the key.
        seal: no request leaves in plain: each is sealed to its node, and a node without a key gets none.
    """

    gateway: Gateway
    chain: ChainView
    deployment: Deployment
    journal: Journal
    key: Signer
    around: Surroundings = field(default_factory=Surroundings)
    seal: bool = False

    @property
    def domain(self) -> Domain:
        """Domain of every signature of this deployment."""
        return self.deployment.domain

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return self.around.now_ms()


async def threaded(call: Callable[..., T], *arguments: Any) -> T:
    """Runs a blocking chain read beside the event loop."""
    return await anyio.to_thread.run_sync(call, *arguments)

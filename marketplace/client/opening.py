"""From what a buyer names to a key's workplace, and who pays for its sessions."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Required, TypedDict

from marketplace.client.caps import check_not_revoked
from marketplace.client.desk import Desk, threaded
from marketplace.client.gateway import Gateway
from marketplace.client.journal import Journal
from marketplace.client.payer import Grant, Payer
from marketplace.client.sessions import SessionPolicy
from marketplace.client.views import Surroundings
from marketplace.protocol.signing import Signer

if TYPE_CHECKING:
    from marketplace.chain.client import ChainClient

_DOOR: Final = "marketplace.client.connect"


class Opening(TypedDict, total=False):
    """What a client is opened with.

    Under a `grant` the key opens sessions from its buyer's account, inside the caps the escrow enforces. The
    file at `journal_path` holds what the key has promised: keep it as long as the key. With `seal`, only the
    node that does a job reads its input and output: the gateway relays both closed.
    """

    gateway_url: Required[str]
    rpc_url: Required[str]
    deployment: Required[Path | str]
    key: Required[Signer | str]
    buyer: Signer | str | None
    grant: Grant | Path | None
    journal_path: Path | str
    policy: SessionPolicy | None
    seal: bool


async def open_desk(how: Opening) -> tuple[Desk, Payer]:
    """A key's workplace, and who pays. Raises as `AsyncWattline.open`."""
    signer = _signer(how["key"])
    chain = await threaded(_connect, how["rpc_url"], Path(how["deployment"]))
    desk = Desk(
        gateway=Gateway(how["gateway_url"], Surroundings()),
        chain=chain,
        deployment=chain.deployment,
        journal=Journal(how.get("journal_path", ":memory:")),
        key=signer,
        seal=how.get("seal", False),
    )
    grant, buyer = how.get("grant"), how.get("buyer")
    if grant is None:
        return desk, Payer.own(signer if buyer is None else _signer(buyer))
    held = Grant.load(grant) if isinstance(grant, Path) else grant
    state = await threaded(chain.key, held.buyer, held.key)
    check_not_revoked(state, held.signed_nonce)
    return desk, Payer.granted(signer, held.at(state.nodes_root), desk.domain)


def _signer(key: Signer | str) -> Signer:
    return Signer(key) if isinstance(key, str) else key


def _connect(rpc_url: str, deployment: Path) -> ChainClient:
    """A checked chain client; web3 takes over a second to load, so its module waits until here."""
    connect: Callable[[str, Path], ChainClient] = importlib.import_module(_DOOR).connect
    return connect(rpc_url, deployment)

"""Puts the contracts on a chain, once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_typing import HexAddress, HexStr
from web3.types import Nonce
from web3.utils import get_create_address

from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.codec import decode_result, encode_call, encode_creation
from marketplace.chain.deployment import Deployment
from marketplace.chain.devkeys import is_local, refuse_test_key
from marketplace.chain.ethereum import Ethereum
from marketplace.chain.journal import MemoryJournal
from marketplace.chain.rpc import Rpc
from marketplace.chain.sender import Sender
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import checksum
from marketplace.protocol.signing import Signer
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

log = get_logger(__name__)

HOUR = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployParams:
    """Constructor arguments; the defaults are those of PROTOCOL §5.

    Attributes:
        treasury: receives the fees.
        token: an ERC-20; None deploys a test dollar, on local chains only.
        dispute_seconds: challenge window and the longest case.
    """

    treasury: str
    token: str | None = None
    min_stake_atoms: int = 100_000_000
    max_session_seconds: int = 72 * HOUR
    grace_seconds: int = 15 * 60
    unstake_delay_seconds: int = 14 * 24 * HOUR
    dispute_seconds: int = 24 * HOUR

    @classmethod
    def local(cls, treasury: str) -> DeployParams:
        """Short windows for a development chain: 24 h sessions, 2 min grace, 25 h unstake delay."""
        return cls(
            treasury=treasury,
            min_stake_atoms=10_000_000,
            max_session_seconds=24 * HOUR,
            grace_seconds=120,
            unstake_delay_seconds=25 * HOUR,
            dispute_seconds=600,
        )


def deploy(
    rpc_url: str,
    deployer: Signer,
    params: DeployParams,
    *,
    path: Path | None = None,
    confirmations: int = 1,
    timeout_seconds: float = 120,
) -> Deployment:
    """Deploys, or finds the deployment of `path` in good order and returns it.

    On a local chain a file that no longer fits is replaced: such chains start anew all the time.

    Raises:
        BadRequest: a test key or a test dollar on a chain where money is real.
        ChainTrouble: the chain does not answer, or `path` is of another chain.
    """
    chain = Ethereum(Rpc(rpc_url))
    refuse_test_key(deployer.address, chain.chain_id)
    if path is not None and path.exists():
        found = _still_good(rpc_url, Deployment.load(path), local=is_local(chain.chain_id))
        if found is not None:
            return found
    if params.token is None and not is_local(chain.chain_id):
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"chain {chain.chain_id} is not local: name the token's address",
            chain_id=chain.chain_id,
        )
    # The clock only stamps records that nobody keeps.
    sender = Sender(
        chain, deployer, MemoryJournal(), lambda: time.time_ns() // 1_000_000, confirmations=confirmations
    )
    deployment = _deploy(chain, sender, params, timeout_seconds)
    ChainClient(rpc_url, deployment).check()
    if path is not None:
        deployment.save(path)
    log.info(Log.CONTRACTS_DEPLOYED, chain_id=deployment.chain_id, escrow=deployment.escrow)
    return deployment


def _still_good(rpc_url: str, found: Deployment, *, local: bool) -> Deployment | None:
    try:
        ChainClient(rpc_url, found).check()
    except ChainTrouble as trouble:
        if trouble.code is ErrorCode.WRONG_CHAIN and local:
            return None
        raise
    return found


def _deploy(chain: Ethereum, sender: Sender, params: DeployParams, timeout_seconds: float) -> Deployment:
    genesis, first = chain.block(0), chain.head().number + 1
    if genesis is None:
        raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "the chain has no block 0")

    def create(name: str, *values: object) -> str:
        call = Call(to=None, data=encode_creation(name, *values), what=f"deploy {name}")
        record = sender.send_and_wait(f"deploy:{name}", call, timeout_seconds)
        seen = chain.tx_receipt(record.tx_hash)
        if seen is None or seen.contract is None:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, f"{name} was deployed and is gone again")
        return checksum(seen.contract)

    token = checksum(params.token) if params.token else create("TestDollar")
    # The escrow names the registry and the registry the escrow: one address has to be known beforehand.
    registry = checksum(
        get_create_address(HexAddress(HexStr(sender.address)), Nonce(chain.nonce(sender.address) + 1))
    )
    sessions = (params.max_session_seconds, params.grace_seconds)
    escrow = create("Escrow", token, registry, checksum(params.treasury), *sessions)
    delays = (params.unstake_delay_seconds, params.dispute_seconds)
    # Refuses to be anywhere but at the predicted address, should the key be used elsewhere meanwhile.
    create("NodeRegistry", token, escrow, params.min_stake_atoms, *delays)
    return Deployment(
        chain_id=chain.chain_id,
        genesis_hash=genesis.hash,
        deployed_block=first,
        token=token,
        registry=registry,
        escrow=escrow,
        treasury=checksum(params.treasury),
        token_symbol=_token_view(chain, token, "symbol"),
        token_decimals=_token_view(chain, token, "decimals"),
        min_stake_atoms=params.min_stake_atoms,
        max_session_seconds=params.max_session_seconds,
        grace_seconds=params.grace_seconds,
    )


def _token_view(chain: Ethereum, token: str, function: str) -> Any:
    return decode_result("TestDollar", function, chain.call(token, encode_call("TestDollar", function)))[0]

"""Puts the contracts on a chain, once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from eth_abi.abi import encode
from eth_typing import HexAddress, HexStr
from web3.types import Nonce
from web3.utils import get_create_address

from marketplace.chain.addressbook import AddressBook, Published
from marketplace.chain.artifacts import contract
from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.codec import encode_creation
from marketplace.chain.deployment import Deployment, check_writable
from marketplace.chain.devkeys import is_local, refuse_test_key
from marketplace.chain.ethereum import Ethereum
from marketplace.chain.journal import MemoryJournal
from marketplace.chain.networks import Network
from marketplace.chain.params import CourtParams as CourtParams
from marketplace.chain.params import DeployParams as DeployParams
from marketplace.chain.params import check
from marketplace.chain.rpc import Rpc
from marketplace.chain.sender import Sender
from marketplace.chain.tokens import symbol_and_decimals
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import checksum, keccak, to_hex
from marketplace.protocol.signing import Signer
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

log = get_logger(__name__)

# Gas of a creation that the chain cannot be asked for, because what its constructor calls is not there yet.
_GAS_OF_CREATION: Final = 53_000
_GAS_PER_BYTE: Final = 200 + 16 + 1
_GAS_OF_CONSTRUCTOR: Final = 400_000
_LAG_PAUSES_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a deployment will do, before anything is sent.

    Attributes:
        addresses: contract name to address, if the deployer sends nothing else meanwhile.
        gas: a bound on all transactions together.
        most_wei: what they cost at most, at the fees of now.
    """

    chain_id: int
    deployer: str
    params: DeployParams
    addresses: dict[str, str]
    gas: int
    most_wei: int
    balance_wei: int


def plan(chain: Ethereum, deployer: str, params: DeployParams) -> Plan:
    """Checks everything that can be checked without a transaction.

    Raises:
        BadRequest: a well-known key, a broken rule, no such token, or too little for the gas.
        ChainTrouble: the chain does not answer.
    """
    chain_id = chain.chain_id
    refuse_test_key(deployer, chain_id)
    if params.token is None and not is_local(chain_id):
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"chain {chain_id} is not local: name the token's address",
            chain_id=chain_id,
        )
    refuse_test_key(params.treasury, chain_id)
    check(params)
    if params.token is not None:
        symbol_and_decimals(chain, params.token)
    nonce = chain.nonce(deployer)
    names = ["Escrow", "NodeRegistry", "Court", "ModelRegistry", "Till"]
    names = names if params.token else ["TestDollar", *names]
    gas = sum(_gas_bound(name) for name in names)
    found = Plan(
        chain_id=chain_id,
        deployer=deployer,
        params=params,
        addresses={name: _created_at(deployer, nonce + i) for i, name in enumerate(names)},
        gas=gas,
        most_wei=gas * chain.fees().max_wei,
        balance_wei=chain.eth_balance_wei(deployer),
    )
    if found.balance_wei < found.most_wei:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"{deployer} has {found.balance_wei} wei, deploying may need {found.most_wei}",
            hint="Send the deployer more of the chain's coin; nothing was sent.",
        )
    return found


def plan_network(chain: Ethereum, deployer: str, network: Network, treasury: str) -> Plan:
    """As `plan`, on the network's own chain and with the token it names. Raises as `plan`."""
    if chain.chain_id != network.chain_id:
        raise ChainTrouble(
            ErrorCode.WRONG_CHAIN,
            f"the RPC is of chain {chain.chain_id}, network {network.name} is chain {network.chain_id}",
            hint="Name that chain's RPC: --rpc URL",
        )
    made = plan(chain, deployer, network.params(treasury))
    if network.token is not None:
        symbol, decimals = symbol_and_decimals(chain, network.token)
        wanted = (network.token_symbol, network.token_decimals)
        if any(want not in (None, got) for want, got in zip(wanted, (symbol, decimals), strict=True)):
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"the token at {network.token} is {symbol} with {decimals} decimals,"
                f" not {wanted[0]} with {wanted[1]}",
                hint="Correct token, token_symbol and token_decimals in the network's file.",
            )
    return made


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
        BadRequest: a test key or a test dollar where money is real, or parameters that break a rule.
        ChainTrouble: the chain does not answer, or `path` is of another chain.
    """
    chain = Ethereum(Rpc(rpc_url))
    refuse_test_key(deployer.address, chain.chain_id)
    found = standing(rpc_url, chain, path) if path is not None else None
    if found is not None:
        return found
    plan(chain, deployer.address, params)
    sender = _sender(chain, deployer, confirmations)
    if path is not None:
        check_writable(path)
    deployment, _ = _deploy(chain, sender, params, timeout_seconds)
    if path is not None:
        deployment.save(path)
    ChainClient(rpc_url, deployment).check()
    return deployment


def publish(
    rpc_url: str,
    deployer: Signer,
    network: Network,
    treasury: str,
    path: Path,
    *,
    timeout_seconds: float = 600,
) -> AddressBook:
    """Deploys what a network says and keeps the address book at `path`. Raises as `deploy`."""
    chain = Ethereum(Rpc(rpc_url))
    made = plan_network(chain, deployer.address, network, treasury)
    check_writable(path)
    sender = _sender(chain, deployer, network.confirmations)
    deployment, contracts = _deploy(chain, sender, made.params, timeout_seconds)
    book = AddressBook(
        network=network.name,
        deployer=deployer.address,
        deployment=deployment,
        parameters=made.params,
        contracts=contracts,
    )
    # What was paid for is written down before anything more is asked of the chain.
    book.save(path)
    ChainClient(rpc_url, deployment).check()
    return book


def standing(rpc_url: str, chain: Ethereum, path: Path) -> Deployment | None:
    """The deployment of a file; None where there is none, or on a local chain that has started anew.

    Raises:
        ChainTrouble: the chain does not answer, or the file is of another chain.
    """
    if not path.exists():
        return None
    found = Deployment.load(path)
    try:
        ChainClient(rpc_url, found).check()
    except ChainTrouble as trouble:
        if trouble.code is ErrorCode.WRONG_CHAIN and is_local(chain.chain_id):
            return None
        raise
    return found


@dataclass(slots=True)
class _Creator:
    """Creates contracts one after the other and remembers each."""

    chain: Ethereum
    sender: Sender
    timeout_seconds: float
    made: dict[str, Published] = dataclasses.field(default_factory=dict)

    def create(self, name: str, *values: object) -> str:
        call = Call(to=None, data=encode_creation(name, *values), what=f"deploy {name}")
        record = self.sender.send_and_wait(f"deploy:{name}", call, self.timeout_seconds)
        address = _patiently(lambda: self._created_by(record.tx_hash))
        if address is None:
            raise _gone(name, record.tx_hash)
        self.note(name, address, record.tx_hash, encode(contract(name).constructor, values))
        return address

    def note(self, name: str, address: str, tx_hash: bytes, arguments: bytes = b"") -> None:
        code = _patiently(lambda: self.chain.code(address))
        if not code:
            raise _gone(name, tx_hash)
        self.made[name] = Published(
            address=address, tx_hash=tx_hash, arguments=arguments, code_hash=keccak(code)
        )

    def _created_by(self, tx_hash: bytes) -> str | None:
        seen = self.chain.tx_receipt(tx_hash)
        return checksum(seen.contract) if seen and seen.contract else None


def _deploy(
    chain: Ethereum, sender: Sender, params: DeployParams, timeout_seconds: float
) -> tuple[Deployment, dict[str, Published]]:
    genesis, first = chain.block(0), chain.head().number + 1
    if genesis is None:
        raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "the chain has no block 0")
    creator = _Creator(chain, sender, timeout_seconds)
    token = checksum(params.token) if params.token else creator.create("TestDollar")
    symbol, decimals = symbol_and_decimals(chain, token)
    # The escrow names registry and court, and they name the escrow: two addresses must be known beforehand.
    nonce = chain.nonce(sender.address)
    registry, court = (_created_at(sender.address, nonce + i) for i in (1, 2))
    windows = (params.max_session_seconds, params.grace_seconds, params.challenge_seconds)
    escrow = creator.create("Escrow", token, registry, court, checksum(params.treasury), *windows)
    delays = (params.unstake_delay_seconds, params.dispute_seconds)
    # Both refuse to be anywhere but at the predicted addresses, should the key be used elsewhere meanwhile.
    creator.create("NodeRegistry", token, escrow, params.min_stake_atoms, *delays)
    creator.create("Court", escrow, params.court.values)
    models = creator.create("ModelRegistry")
    # The escrow makes its reader first of all; a contract counts from 1 (source: EIP-161).
    creator.note("ReceiptReader", _created_at(escrow, 1), creator.made["Escrow"].tx_hash)
    till = creator.create("Till", escrow)
    receiver = _created_at(till, 1)
    creator.note("Receiver", receiver, creator.made["Till"].tx_hash)
    deployment = Deployment(
        chain_id=chain.chain_id,
        genesis_hash=genesis.hash,
        deployed_block=first,
        token=token,
        registry=registry,
        escrow=escrow,
        court=court,
        treasury=checksum(params.treasury),
        token_symbol=symbol,
        token_decimals=decimals,
        min_stake_atoms=params.min_stake_atoms,
        max_session_seconds=params.max_session_seconds,
        grace_seconds=params.grace_seconds,
        challenge_seconds=params.challenge_seconds,
        models=models,
        till=till,
        receiver=receiver,
    )
    log.info(Log.CONTRACTS_DEPLOYED, chain_id=deployment.chain_id, escrow=deployment.escrow)
    return deployment, creator.made


def _sender(chain: Ethereum, deployer: Signer, confirmations: int) -> Sender:
    # The clock only stamps records that nobody keeps.
    return Sender(
        chain, deployer, MemoryJournal(), lambda: time.time_ns() // 1_000_000, confirmations=confirmations
    )


def _created_at(deployer: str, nonce: int) -> str:
    return checksum(get_create_address(HexAddress(HexStr(deployer)), Nonce(nonce)))


def _gas_bound(name: str) -> int:
    return _GAS_OF_CREATION + _GAS_OF_CONSTRUCTOR + _GAS_PER_BYTE * len(contract(name).creation_code)


def _patiently(look: Callable[[], T]) -> T:
    """What a look at the chain finds in the end: the node that answers may lag behind the one that mined."""
    for pause in _LAG_PAUSES_SECONDS:
        try:
            found = look()
        except ChainTrouble as trouble:
            log.warning(Log.CHAIN_TROUBLE, reason=trouble.detail)
        else:
            if found:
                return found
        time.sleep(pause)
    return look()


def _gone(name: str, tx_hash: bytes) -> ChainTrouble:
    return ChainTrouble(
        ErrorCode.CHAIN_UNAVAILABLE,
        f"{name} was deployed by {to_hex(tx_hash)} and is gone again",
        tx_hash=to_hex(tx_hash),
        hint="Ask another RPC whether it is there before you deploy once more: --rpc URL",
    )

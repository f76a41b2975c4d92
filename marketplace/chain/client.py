"""Our contracts as the market reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from marketplace.chain.blocks import BlockRef as BlockRef
from marketplace.chain.blocks import ReorgPlan, compare, plan
from marketplace.chain.codec import ChainEvent as ChainEvent
from marketplace.chain.codec import decode_log, decode_result, encode_call, event_topic
from marketplace.chain.deployment import Deployment
from marketplace.chain.ethereum import Ethereum
from marketplace.chain.ethereum import TxSeen as TxSeen
from marketplace.chain.rpc import Rpc
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, checksum

_EXISTS: Final = 1
_CLOSED: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """A session's money on-chain; amounts are cumulative, `expires_at` is Unix seconds."""

    deposited_atoms: int
    paid_atoms: int
    through_seq: int
    node_id: int
    expires_at: int
    key_epoch: int
    closed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """A node on-chain; `earnings_atoms` are not collected yet, `serving` is whether sessions may open."""

    owner: str
    epoch: int
    signer: str
    encryption_key: bytes
    uri: str
    settler: str
    earnings_atoms: int
    serving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderState:
    """A provider's stake; `unstake_at` (Unix seconds) is 0 when none is in delay."""

    staked_atoms: int
    unstaking_atoms: int
    unstake_at: int
    registered: bool


class ChainClient(Ethereum):
    """Reads of one deployment. Every read may raise `ChainTrouble`."""

    def __init__(self, rpc_url: str, deployment: Deployment, *, timeout_seconds: float = 10) -> None:
        super().__init__(Rpc(rpc_url, timeout_seconds=timeout_seconds))
        self.deployment = deployment
        self._chain_id = deployment.chain_id
        self._contracts = {deployment.escrow.lower(): "Escrow", deployment.registry.lower(): "NodeRegistry"}

    def check(self) -> None:
        """Passes on the deployment's very chain.

        Raises:
            ChainTrouble: another chain id or genesis, or other code at the addresses; or no answer.
        """
        here = self.deployment
        chain_id = int(self._read("eth_chainId"), 16)
        if chain_id != here.chain_id:
            raise _wrong(f"chain id is {chain_id}, the deployment's {here.chain_id}")
        genesis = self.block(0)
        if genesis is None or genesis.hash != here.genesis_hash:
            raise _wrong("the chain was started anew since the deployment: its block 0 differs")
        for name, address in (
            ("Escrow", here.escrow),
            ("NodeRegistry", here.registry),
            ("token", here.token),
        ):
            if not self.code(address):
                raise _wrong(f"no code of {name} at {address}")
        (separator,) = self._view("Escrow", "DOMAIN_SEPARATOR")
        (registry,) = self._view("Escrow", "REGISTRY")
        if separator != here.domain.separator() or checksum(registry) != here.registry:
            raise _wrong(f"the contract at {here.escrow} is not this deployment's escrow")

    def session(self, session_id: bytes, key: str, at: int | None = None) -> SessionState | None:
        """A session under its key, now or at the end of block `at`; None: never opened."""
        deposited, paid, seq, node_id, expires_at, epoch, flags = self._view(
            "Escrow", "session", session_id, key, at=at
        )
        if not flags & _EXISTS:
            return None
        return SessionState(
            deposited_atoms=deposited,
            paid_atoms=paid,
            through_seq=seq,
            node_id=node_id,
            expires_at=expires_at,
            key_epoch=epoch,
            closed=bool(flags & _CLOSED),
        )

    def account_atoms(self, buyer: str) -> int:
        """Money of a buyer that is promised to nobody."""
        return int(self._view("Escrow", "accountOf", buyer)[0])

    def token_balance_atoms(self, address: str) -> int:
        """Tokens an address holds."""
        return int(self._view("TestDollar", "balanceOf", address)[0])

    def allowance_atoms(self, owner: str, spender: str) -> int:
        """Tokens `spender` may take from `owner`."""
        return int(self._view("TestDollar", "allowance", owner, spender)[0])

    def fee_bps(self) -> int:
        """The escrow's fee on what is collected now."""
        return int(self._view("Escrow", "feeBps")[0])

    def fees_atoms(self) -> int:
        """Fees in the escrow, not yet withdrawn."""
        return int(self._view("Escrow", "fees")[0])

    def node(self, node_id: int) -> NodeState | None:
        """A node with its newest key; None: no such node."""
        owner, epoch, signer, encryption_key, uri = self._view("NodeRegistry", "node", node_id)
        if owner == ZERO_ADDRESS:
            return None
        settler, earnings = self._view("Escrow", "nodeAccount", node_id)
        serving, _ = self._view("NodeRegistry", "serving", node_id)
        return NodeState(
            owner=checksum(owner),
            epoch=epoch,
            signer=checksum(signer),
            encryption_key=encryption_key,
            uri=uri,
            settler=checksum(settler),
            earnings_atoms=earnings,
            serving=serving,
        )

    def node_count(self) -> int:
        """Nodes ever added; also the newest node's id."""
        return int(self._view("NodeRegistry", "nodeCount")[0])

    def signer_at(self, node_id: int, epoch: int) -> str:
        """Key of a node in one of its epochs; the zero address when there was no such epoch."""
        return checksum(self._view("NodeRegistry", "signerAt", node_id, epoch)[0])

    def provider(self, owner: str) -> ProviderState:
        """Stake of a provider; all zero for an address that never registered."""
        staked, unstaking, unstake_at, registered = self._view("NodeRegistry", "provider", owner)
        return ProviderState(
            staked_atoms=staked, unstaking_atoms=unstaking, unstake_at=unstake_at, registered=registered
        )

    def node_ids_of(self, owner: str) -> list[int]:
        """Nodes an owner added, oldest first."""
        here = self.deployment
        topics = [event_topic("NodeRegistry", "NodeAdded"), None, "0x" + owner[2:].lower().rjust(64, "0")]
        found = self.logs([here.registry], here.deployed_block, self.head().number, topics)
        events = [decode_log(log, self._contracts) for log in found]
        return [int(event.args["nodeId"]) for event in events if event]

    def events(self, first: int, last: int) -> list[ChainEvent]:
        """Events of escrow and registry in blocks `first` to `last`, both included, in chain order.

        Raises:
            ChainTrouble: the node does not have block `last`; its empty answer would be a lie.
        """
        found = self.logs([self.deployment.escrow, self.deployment.registry], first, last, [])
        if self.block(last) is None:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, f"the node lags: it does not have block {last}")
        events = [event for log in found if (event := decode_log(log, self._contracts))]
        return sorted(events, key=lambda event: (event.block_number, event.log_index))

    def plan(self, known: Sequence[tuple[int, bytes]]) -> ReorgPlan:
        """What a follower does next (see `blocks.plan`); asks only as far back as hashes differ.

        Args:
            known: stored (number, hash), ascending.
        """
        head = self.head().number
        canonical = compare(known, head, self._hash_of)
        return plan(known, canonical, head, start=self.deployment.deployed_block)

    def _hash_of(self, number: int) -> bytes | None:
        found = self.block(number)
        return found.hash if found else None

    def _view(self, contract: str, function: str, *values: Any, at: int | None = None) -> tuple[Any, ...]:
        to = {"Escrow": self.deployment.escrow, "NodeRegistry": self.deployment.registry}.get(
            contract, self.deployment.token
        )
        data = encode_call(contract, function, *values)
        try:
            return decode_result(contract, function, self.call(to, data, at=at))
        except (ValueError, BadRequest) as error:
            # No view of our contracts reverts, so other code lives at the address.
            raise _wrong(f"{contract}.{function} at {to}: {error}") from error


def _wrong(detail: str) -> ChainTrouble:
    return ChainTrouble(ErrorCode.WRONG_CHAIN, detail)

"""Our contracts as the market reads them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from marketplace.chain.batches import settled_apart
from marketplace.chain.blocks import BlockRef as BlockRef
from marketplace.chain.blocks import ReorgPlan, compare, plan
from marketplace.chain.codec import ChainEvent as ChainEvent
from marketplace.chain.codec import decode_log, decode_result, encode_call, event_topic
from marketplace.chain.deployment import Deployment
from marketplace.chain.ethereum import Ethereum
from marketplace.chain.ethereum import TxSeen as TxSeen
from marketplace.chain.rpc import Rpc
from marketplace.chain.terms import terms_in
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, checksum, to_hex
from marketplace.protocol.messages import Open

_EXISTS: Final = 1
_CLOSED: Final = 2
_CLAIMED: Final = 4


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
    claimed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimState:
    """Money of a session that is claimed and not decided; `final_at` is Unix seconds."""

    pending_atoms: int
    held_atoms: int
    through_seq: int
    final_at: int
    receipts_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyState:
    """What a key may do with a buyer's account, and did; `expires_at` 0: nothing. `day` counts from 1970."""

    per_session_atoms: int
    per_day_atoms: int
    total_atoms: int
    expires_at: int
    is_listed: bool
    spent_today_atoms: int
    spent_atoms: int
    day: int
    nonce: int
    nodes_root: bytes


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
    """A provider's stake; `unstake_at` (Unix seconds) is 0 when none is in delay.

    `locked_atoms` of what is staked stand behind claims.
    """

    staked_atoms: int
    unstaking_atoms: int
    locked_atoms: int
    unstake_at: int
    registered: bool


class ChainClient(Ethereum):
    """Reads of one deployment. Every read may raise `ChainTrouble`."""

    def __init__(self, rpc_url: str, deployment: Deployment, *, timeout_seconds: float = 10) -> None:
        super().__init__(Rpc(rpc_url, timeout_seconds=timeout_seconds))
        self.deployment = deployment
        self._chain_id = deployment.chain_id
        self._contracts = {
            deployment.escrow.lower(): "Escrow",
            deployment.registry.lower(): "NodeRegistry",
            deployment.court.lower(): "Court",
        }
        if deployment.has_models:
            self._contracts[deployment.models.lower()] = "ModelRegistry"

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
            ("Court", here.court),
            ("token", here.token),
            ("ModelRegistry", here.models),
            ("Till", here.till),
            ("Receiver", here.receiver),
        ):
            if address != ZERO_ADDRESS and not self.code(address):
                raise _wrong(f"no code of {name} at {address}")
        (separator,) = self._view("Escrow", "DOMAIN_SEPARATOR")
        (registry,) = self._view("Escrow", "REGISTRY")
        (court,) = self._view("Escrow", "COURT")
        named = (checksum(registry), checksum(court))
        if separator != here.domain.separator() or named != (here.registry, here.court):
            raise _wrong(f"the contract at {here.escrow} is not this deployment's escrow")

    def session(self, session_id: bytes, key: str, at: int | None = None) -> SessionState | None:
        """A session under its key, now or at the end of block `at`; None: never opened.

        The escrow goes by the first 24 bytes of the id: what it says holds for one id that begins so.
        """
        deposited, paid, seq, node_id, flags, epoch, expires_at = self._view(
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
            claimed=bool(flags & _CLAIMED),
        )

    def opened(self, session_id: bytes) -> bool:
        """Whether a session with this whole id was ever opened; `session` goes by its first 24 bytes."""
        here = self.deployment
        return bool(self.history([here.escrow], [event_topic("Escrow", "SessionOpened"), to_hex(session_id)]))

    def claimed_receipts(self, session_id: bytes) -> frozenset[str]:
        """Digests, as `0x` hex, of all receipts that were ever claimed of a session."""
        topics = [event_topic("Escrow", "Claimed"), to_hex(session_id)]
        events = self.history([self.deployment.escrow], topics)
        return frozenset(digest for event in events for digest in event.args["receiptHashes"])

    def claim(self, session_id: bytes) -> ClaimState | None:
        """A session's claim; None when nothing is claimed and undecided."""
        pending, held, seq, _, final_at, receipts_hash = self._view("Escrow", "claimOf", session_id)
        if not pending and not held:
            return None
        return ClaimState(
            pending_atoms=pending,
            held_atoms=held,
            through_seq=seq,
            final_at=final_at,
            receipts_hash=receipts_hash,
        )

    def terms_of(self, session_id: bytes) -> Open | None:
        """The terms a session was opened with, as the transaction that opened it carries them.

        None: never opened; or another contract opened it and made the terms up itself, so that nothing on the
        chain but its own trace has them.
        """
        here = self.deployment
        topics = [event_topic("Escrow", "SessionOpened"), to_hex(session_id)]
        found = self.history([here.escrow], topics)
        return terms_in(self.tx_input(found[0].tx_hash), found[0], here.domain) if found else None

    def key(self, buyer: str, key: str) -> KeyState:
        """A key of a buyer; all zero when it never had a grant."""
        per_session, per_day, total, expires_at, listed, today, spent, day, nonce, root = self._view(
            "Escrow", "keyOf", buyer, key
        )
        return KeyState(
            per_session_atoms=per_session,
            per_day_atoms=per_day,
            total_atoms=total,
            expires_at=expires_at,
            is_listed=listed,
            spent_today_atoms=today,
            spent_atoms=spent,
            day=day,
            nonce=nonce,
            nodes_root=root,
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
        staked, unstaking, locked, unstake_at, registered = self._view("NodeRegistry", "provider", owner)
        return ProviderState(
            staked_atoms=staked,
            unstaking_atoms=unstaking,
            locked_atoms=locked,
            unstake_at=unstake_at,
            registered=registered,
        )

    def node_ids_of(self, owner: str) -> list[int]:
        """Nodes an owner added, oldest first."""
        here = self.deployment
        topics = [event_topic("NodeRegistry", "NodeAdded"), None, "0x" + owner[2:].lower().rjust(64, "0")]
        return [int(event.args["nodeId"]) for event in self.history([here.registry], topics)]

    def history(self, addresses: list[str], topics: list[Any]) -> list[ChainEvent]:
        """Events of contracts since the deployment, oldest first; for questions people ask now and then."""
        found = self.long_logs(addresses, self.deployment.deployed_block, self.head().number, topics)
        return [event for log in found if (event := decode_log(log, self._contracts))]

    def events(self, first: int, last: int) -> list[ChainEvent]:
        """Events of escrow and both registries in blocks `first` to `last`, both included, in chain order.

        A settled batch comes as one `VoucherSettled` a session (see `settled_apart`).

        Raises:
            ChainTrouble: the node does not have block `last`; its empty answer would be a lie.
        """
        here = self.deployment
        models = [here.models] if here.has_models else []
        found = self.logs([here.escrow, here.registry, *models], first, last, [])
        if self.block(last) is None:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, f"the node lags: it does not have block {last}")
        events = [event for log in found if (event := decode_log(log, self._contracts))]
        parts = itertools.chain.from_iterable(settled_apart(event) for event in events)
        return sorted(parts, key=lambda event: (event.block_number, event.log_index, event.part))

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
        here = self.deployment
        known = {"Escrow": here.escrow, "NodeRegistry": here.registry, "Court": here.court}
        if here.has_models:
            known["ModelRegistry"] = here.models
        if here.has_till:
            known["Till"] = here.till
        to = known.get(contract, here.token)
        data = encode_call(contract, function, *values)
        try:
            return decode_result(contract, function, self.call(to, data, at=at))
        except (ValueError, BadRequest) as error:
            # No view of our contracts reverts, so other code lives at the address.
            raise _wrong(f"{contract}.{function} at {to}: {error}") from error


def _wrong(detail: str) -> ChainTrouble:
    return ChainTrouble(ErrorCode.WRONG_CHAIN, detail)

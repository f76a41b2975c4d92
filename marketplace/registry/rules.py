"""What each event of the contracts means for accounts, sessions, nodes and names of models; pure.

Where the contract sets a value the fold sets it, so that an event met twice does no harm there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS


class Event(Protocol):
    """What a fold needs of an event; `args` are Solidity's names."""

    @property
    def block_number(self) -> int:
        """Block it is in."""

    @property
    def name(self) -> str:
        """Solidity's name."""

    @property
    def args(self) -> dict[str, Any]:
        """Integers, `0x` hex, checksummed addresses and text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFacts:
    """A session on-chain; amounts are cumulative, `expires_at` is Unix seconds.

    `claimed_atoms` are claimed and not decided: they wait for their window, or for the court.
    """

    session_id: str
    buyer: str
    key: str
    node_id: int
    key_epoch: int
    deposited_atoms: int
    paid_atoms: int
    claimed_atoms: int
    through_seq: int
    expires_at: int
    closed: bool
    opened_block: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """A node on-chain, its owner's stake, and what it earned and did not collect."""

    node_id: int
    owner: str
    epoch: int
    signer: str
    encryption_key: str
    settler: str
    uri: str
    stake_atoms: int
    earnings_atoms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasFacts:
    """What an alias, `name@label`, means on-chain; a `fixed` one is a version and never moves."""

    alias: str
    model_id: str
    publisher: str
    fixed: bool
    block_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """As much of the chain's state as a fold needs; what is absent has had no event yet."""

    accounts: dict[str, int] = field(default_factory=dict)
    sessions: dict[str, SessionFacts] = field(default_factory=dict)
    nodes: dict[int, NodeFacts] = field(default_factory=dict)
    stakes: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, AliasFacts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """Which aggregates something changes."""

    buyers: frozenset[str] = frozenset()
    sessions: frozenset[str] = frozenset()
    nodes: frozenset[int] = frozenset()
    owners: frozenset[str] = frozenset()
    aliases: frozenset[str] = frozenset()

    def __or__(self, other: Touched) -> Touched:
        return Touched(
            buyers=self.buyers | other.buyers,
            sessions=self.sessions | other.sessions,
            nodes=self.nodes | other.nodes,
            owners=self.owners | other.owners,
            aliases=self.aliases | other.aliases,
        )


def fold(world: World, events: Iterable[Event]) -> World:
    """The world after the events, which are in chain order and follow on `world`.

    Raises:
        Broken: a session's event without the session; an earlier event was missed.
    """
    after = World(
        accounts=dict(world.accounts),
        sessions=dict(world.sessions),
        nodes=dict(world.nodes),
        stakes=dict(world.stakes),
        aliases=dict(world.aliases),
    )
    for event in events:
        apply = _APPLY.get(event.name)
        if apply is not None:
            apply(after, event)
    return after


def subject(args: Mapping[str, Any]) -> str:
    """What an event is about: a session id, an address, `node:7`, `alias:a@1`, a model, or `escrow`."""
    if "sessionId" in args:
        return str(args["sessionId"])
    if "nodeId" in args:
        return node_subject(args["nodeId"])
    if "label" in args:
        return alias_subject(_alias(args))
    if "modelId" in args:
        return str(args["modelId"])
    return str(args.get("buyer") or args.get("owner") or "escrow")


def node_subject(node_id: int) -> str:
    """Subject of a node's events."""
    return f"node:{node_id}"


def alias_subject(alias: str) -> str:
    """Subject of an alias's events."""
    return f"alias:{alias}"


def touched(events: Iterable[Event]) -> Touched:
    """Aggregates that these events name; those they change through a session are not among them."""
    buyers: set[str] = set()
    sessions: set[str] = set()
    nodes: set[int] = set()
    owners: set[str] = set()
    aliases: set[str] = set()
    for event in events:
        args = event.args
        buyers |= {args["buyer"]} if "buyer" in args else set()
        sessions |= {args["sessionId"]} if "sessionId" in args else set()
        nodes |= {args["nodeId"]} if "nodeId" in args else set()
        owners |= {args["owner"]} if "owner" in args else set()
        aliases |= {_alias(args)} if "label" in args else set()
    return Touched(
        buyers=frozenset(buyers),
        sessions=frozenset(sessions),
        nodes=frozenset(nodes),
        owners=frozenset(owners),
        aliases=frozenset(aliases),
    )


def is_serving(*, epoch: int, stake_atoms: int, min_stake_atoms: int) -> bool:
    """Whether the contracts let a session open for a node."""
    return epoch > 0 and stake_atoms >= min_stake_atoms


def _deposited(world: World, event: Event) -> None:
    _credit(world, event.args["buyer"], event.args["amount"])


def _withdrawn(world: World, event: Event) -> None:
    _credit(world, event.args["buyer"], -event.args["amount"])


def _session_opened(world: World, event: Event) -> None:
    args = event.args
    _credit(world, args["buyer"], -args["amount"])
    world.sessions[args["sessionId"]] = SessionFacts(
        session_id=args["sessionId"],
        buyer=args["buyer"],
        key=args["key"],
        node_id=args["nodeId"],
        key_epoch=args["keyEpoch"],
        deposited_atoms=args["amount"],
        paid_atoms=0,
        claimed_atoms=0,
        through_seq=0,
        expires_at=args["expiresAt"],
        closed=False,
        opened_block=event.block_number,
    )


def _session_topped_up(world: World, event: Event) -> None:
    held = _session(world, event)
    _credit(world, held.buyer, -event.args["added"])
    world.sessions[held.session_id] = replace(held, deposited_atoms=event.args["deposited"])


def _voucher_settled(world: World, event: Event) -> None:
    held, paid = _session(world, event), event.args["paid"]
    _earn(world, held.node_id, paid - held.paid_atoms)
    world.sessions[held.session_id] = replace(held, paid_atoms=paid, through_seq=event.args["throughSeq"])


def _claimed(world: World, event: Event) -> None:
    held = _session(world, event)
    world.sessions[held.session_id] = replace(held, claimed_atoms=held.claimed_atoms + event.args["amount"])


def _claim_replaced(world: World, event: Event) -> None:
    """The voucher's own event says what is paid instead."""
    held = _session(world, event)
    world.sessions[held.session_id] = replace(held, claimed_atoms=0)


def _claim_finalised(world: World, event: Event) -> None:
    held, args = _session(world, event), event.args
    _earn(world, held.node_id, args["amount"])
    world.sessions[held.session_id] = replace(
        held,
        paid_atoms=args["paid"],
        claimed_atoms=held.claimed_atoms - args["amount"],
        through_seq=args["throughSeq"],
    )


def _claim_resolved(world: World, event: Event) -> None:
    held, amount = _session(world, event), event.args["amount"]
    earned = amount if event.args["isPaid"] else 0
    world.sessions[held.session_id] = replace(
        held, paid_atoms=held.paid_atoms + earned, claimed_atoms=held.claimed_atoms - amount
    )
    _earn(world, held.node_id, earned)
    if held.closed:
        _credit(world, held.buyer, amount - earned)


def _session_closed(world: World, event: Event) -> None:
    held = _session(world, event)
    _credit(world, held.buyer, event.args["returned"])
    world.sessions[held.session_id] = replace(held, paid_atoms=event.args["paid"], closed=True)


def _collected(world: World, event: Event) -> None:
    node = world.nodes.get(event.args["nodeId"])
    if node is not None:
        world.nodes[node.node_id] = replace(node, earnings_atoms=0)


def _node_added(world: World, event: Event) -> None:
    args = event.args
    world.nodes[args["nodeId"]] = NodeFacts(
        node_id=args["nodeId"],
        owner=args["owner"],
        epoch=1,
        signer=args["signer"],
        encryption_key=args["encryptionKey"],
        settler=ZERO_ADDRESS,  # set by the next event of the same transaction
        uri=args["uri"],
        stake_atoms=world.stakes.get(args["owner"], 0),
        earnings_atoms=0,
    )


def _node_key_rotated(world: World, event: Event) -> None:
    args = event.args
    _change_node(
        world, event, epoch=args["epoch"], signer=args["signer"], encryption_key=args["encryptionKey"]
    )


def _metadata_set(world: World, event: Event) -> None:
    _change_node(world, event, uri=event.args["uri"])


def _settler_set(world: World, event: Event) -> None:
    _change_node(world, event, settler=event.args["settler"])


def _staked(world: World, event: Event) -> None:
    """What is left at work, also after a slash."""
    _stake(world, event.args["owner"], event.args["staked"])


def _unstake_requested(world: World, event: Event) -> None:
    owner = event.args["owner"]
    _stake(world, owner, world.stakes.get(owner, 0) - event.args["amount"])


def _version_released(world: World, event: Event) -> None:
    _name(world, event, fixed=True)


def _channel_pointed(world: World, event: Event) -> None:
    _name(world, event, fixed=False)


_APPLY: Final[dict[str, Callable[[World, Event], None]]] = {
    "Deposited": _deposited,
    "Withdrawn": _withdrawn,
    "SessionOpened": _session_opened,
    "SessionToppedUp": _session_topped_up,
    "VoucherSettled": _voucher_settled,
    "Claimed": _claimed,
    "ClaimReplaced": _claim_replaced,
    "ClaimFinalised": _claim_finalised,
    "ClaimResolved": _claim_resolved,
    "SessionClosed": _session_closed,
    "Collected": _collected,
    "NodeAdded": _node_added,
    "NodeKeyRotated": _node_key_rotated,
    "MetadataSet": _metadata_set,
    "SettlerSet": _settler_set,
    "Staked": _staked,
    "UnstakeRequested": _unstake_requested,
    "Slashed": _staked,
    "VersionReleased": _version_released,
    "ChannelPointed": _channel_pointed,
}


def _alias(args: Mapping[str, Any]) -> str:
    return f"{args['name']}@{args['label']}"


def _name(world: World, event: Event, *, fixed: bool) -> None:
    alias = _alias(event.args)
    world.aliases[alias] = AliasFacts(
        alias=alias,
        model_id=event.args["modelId"],
        publisher=event.args["publisher"],
        fixed=fixed,
        block_number=event.block_number,
    )


def _credit(world: World, buyer: str, atoms: int) -> None:
    world.accounts[buyer] = world.accounts.get(buyer, 0) + atoms


def _earn(world: World, node_id: int, atoms: int) -> None:
    # Absent only where a fold is for somebody else's sake; then nobody reads the node afterwards.
    node = world.nodes.get(node_id)
    if node is not None:
        world.nodes[node_id] = replace(node, earnings_atoms=node.earnings_atoms + atoms)


def _session(world: World, event: Event) -> SessionFacts:
    held = world.sessions.get(event.args["sessionId"])
    if held is None:
        raise Broken(
            ErrorCode.INTERNAL,
            f"{event.name} in block {event.block_number} of a session that never opened: events are missing",
            session_id=event.args["sessionId"],
        )
    return held


def _change_node(world: World, event: Event, **changes: Any) -> None:
    # Absent only where a fold is for somebody else's sake; then nobody reads the node afterwards.
    node = world.nodes.get(event.args["nodeId"])
    if node is not None:
        world.nodes[node.node_id] = replace(node, **changes)


def _stake(world: World, owner: str, atoms: int) -> None:
    world.stakes[owner] = atoms
    for node in [node for node in world.nodes.values() if node.owner == owner]:
        world.nodes[node.node_id] = replace(node, stake_atoms=atoms)

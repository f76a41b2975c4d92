"""Events into rows: forward one batch at a time, or anew after a reorganisation."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

from marketplace.protocol.batches import SHORT_ID_BYTES
from marketplace.registry import rules
from marketplace.registry.rules import NodeFacts, SessionFacts, Touched, World
from marketplace.store import aliases, projection
from marketplace.store import events as chain_log
from marketplace.store.events import EventFact
from marketplace.store.projection import MAX_ATOMS, Columns
from marketplace.store.tables import Tx

_SHORT = len("0x") + 2 * SHORT_ID_BYTES
_LOOSELY_NAMED = frozenset({"VoucherSettled", "VoucherSkipped", "ClaimReplaced"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the chain pays of a session's orders above `after_seq` may have changed; below it has not."""

    session_id: str
    after_seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What taking in some events changed; at most one standing a session."""

    fresh: list[EventFact]
    removed: list[EventFact]
    standings: list[Standing]


def take_in(db: Tx, events: Sequence[EventFact], *, cursor: int, rollback_to: int | None = None) -> Taken:
    """Stores the events that are not there yet, and everything that follows from them.

    Args:
        db: a write transaction; all of this is committed with it or not at all.
        events: in chain order; ones that are stored already are passed over.
        cursor: newest block folded so far; an event at or below it was missed, and its aggregates are
            folded anew.
        rollback_to: newest block that both the old chain and the new one have; None: nothing changed.

    Raises:
        Broken: an earlier event is missing; read the chain again.
        ChainTrouble: another event is stored at the same place.
    """
    removed = [] if rollback_to is None else chain_log.rollback(db, rollback_to)
    fresh = chain_log.add_events(db, _named(db, events))
    folded_to = cursor if rollback_to is None else min(cursor, rollback_to)
    if removed or any(event.block_number <= folded_to for event in fresh):
        refold(db, rules.touched([*removed, *fresh]))
    elif fresh:
        _advance(db, fresh)
    return Taken(fresh=fresh, removed=removed, standings=_standings(db, removed, fresh))


def replace_all(db: Tx, events: Sequence[EventFact]) -> Taken:
    """Replaces every stored event and derives everything anew; blocks stay."""
    removed = chain_log.cut(db, 0)
    fresh = chain_log.add_events(db, _named(db, events))
    rebuild(db)
    return Taken(fresh=fresh, removed=removed, standings=_standings(db, removed, fresh))


def untold(db: Tx) -> list[Standing]:
    """Standings of sessions that have jobs the chain settled and nobody marked: their receipts came late."""
    late = projection.sessions_paid_unseen(db)
    return [Standing(session_id=session_id, after_seq=late[session_id] - 1) for session_id in sorted(late)]


def refold(db: Tx, named: Touched) -> None:
    """Derives aggregates from all their events anew, and those that depend on them."""
    known = [SessionFacts(**columns) for columns in projection.sessions(db, named.sessions).values()]
    buyers = named.buyers | {held.buyer for held in known}
    node_ids = named.nodes | {held.node_id for held in known} | projection.nodes_of(db, named.owners)
    owners = named.owners | {columns["owner"] for columns in projection.nodes(db, node_ids).values()}
    subjects = named.sessions | projection.sessions_of(db, buyers, node_ids) | buyers | owners
    subjects |= {rules.node_subject(node_id) for node_id in node_ids}
    subjects |= {rules.alias_subject(alias) for alias in named.aliases}
    world = rules.fold(World(), chain_log.events_about(db, subjects))
    # The fold also has parts of neighbours in it, of which not every event was read: those are not saved.
    _save(db, world, buyers=buyers, sessions=named.sessions, node_ids=node_ids, names=named.aliases)


def rebuild(db: Tx) -> None:
    """Derives every account, session, node and alias from the stored events anew."""
    world = rules.fold(World(), chain_log.all_events(db))
    buyers, sessions, node_ids = projection.known_keys(db)
    _save(
        db,
        world,
        buyers=buyers | set(world.accounts),
        sessions=sessions | set(world.sessions),
        node_ids=node_ids | set(world.nodes),
        names=aliases.known(db) | set(world.aliases),
    )


def _named(db: Tx, events: Sequence[EventFact]) -> list[EventFact]:
    """The events with whole session ids, of which those about vouchers have but the first 24 bytes right.

    A batch names no more; a single voucher's event repeats what its key signed, right or wrong behind those.
    """
    loose = {event.subject for event in events if event.name in _LOOSELY_NAMED}
    if not loose:
        return list(events)
    opened = {event.subject[:_SHORT]: event.subject for event in events if event.name == "SessionOpened"}
    known = projection.full_ids(db, {name for name in loose if name[:_SHORT] not in opened})
    known |= {name: opened[name[:_SHORT]] for name in loose if name[:_SHORT] in opened}
    return [
        _renamed(event, known.get(event.subject, event.subject)) if event.name in _LOOSELY_NAMED else event
        for event in events
    ]


def _renamed(event: EventFact, subject: str) -> EventFact:
    if subject == event.subject:
        return event
    return replace(event, subject=subject, args=event.args | {"sessionId": subject})


def _advance(db: Tx, fresh: Sequence[EventFact]) -> None:
    named = rules.touched(fresh)
    world = _load(db, named, fresh)
    if _has_clamped(world):
        # A stored amount that is only the largest a column holds is no base to add to.
        refold(db, named)
        return
    after = rules.fold(world, fresh)
    projection.put_accounts(db, after.accounts)
    projection.put_sessions(db, {key: asdict(facts) for key, facts in after.sessions.items()})
    projection.put_nodes(db, {key: asdict(facts) for key, facts in after.nodes.items()})
    aliases.put(db, {key: asdict(facts) for key, facts in after.aliases.items()})


def _load(db: Tx, named: Touched, fresh: Sequence[EventFact]) -> World:
    sessions = _present_sessions(projection.sessions(db, named.sessions))
    buyers = named.buyers | {held.buyer for held in sessions.values()}
    node_ids = named.nodes | {held.node_id for held in sessions.values()}
    node_ids |= projection.nodes_of(db, named.owners)
    new_places = {event.place for event in fresh}
    earlier = [e for e in chain_log.events_about(db, named.owners) if e.place not in new_places]
    return World(
        accounts=projection.accounts(db, buyers),
        sessions=sessions,
        nodes=_present_nodes(projection.nodes(db, node_ids)),
        # No row keeps the stake of a provider that has no node yet; its few events do.
        stakes=rules.fold(World(), earlier).stakes,
    )


def _save(
    db: Tx,
    world: World,
    *,
    buyers: Collection[str],
    sessions: Collection[str],
    node_ids: Collection[int],
    names: Collection[str],
) -> None:
    projection.put_accounts(db, {key: world.accounts[key] for key in buyers if key in world.accounts})
    projection.forget_accounts(db, [key for key in buyers if key not in world.accounts])
    projection.put_sessions(db, {k: asdict(world.sessions[k]) for k in sessions if k in world.sessions})
    projection.void_sessions(db, [key for key in sessions if key not in world.sessions])
    projection.put_nodes(db, {key: asdict(world.nodes[key]) for key in node_ids if key in world.nodes})
    projection.void_nodes(db, [key for key in node_ids if key not in world.nodes])
    aliases.put(db, {key: asdict(world.aliases[key]) for key in names if key in world.aliases})
    aliases.forget(db, [key for key in names if key not in world.aliases])


def _standings(db: Tx, removed: Sequence[EventFact], fresh: Sequence[EventFact]) -> list[Standing]:
    were = {_payment(event) for event in removed if event.name in chain_log.PAYING}
    are = {_payment(event) for event in fresh if event.name in chain_log.PAYING}
    # A transaction that only moved to another block still pays the same jobs: nothing to tell.
    changed = were ^ are
    found: list[Standing] = []
    for session_id in sorted({payment.session_id for payment in changed}):
        first = min(payment.through_seq for payment in changed if payment.session_id == session_id)
        after_seq = chain_log.settled_through(db, session_id, first)
        found.append(Standing(session_id=session_id, after_seq=after_seq))
    return found


@dataclass(frozen=True, slots=True)
class _Payment:
    """An event of `PAYING`, wherever it is mined; `through_seq` is 0 where it names none."""

    session_id: str
    through_seq: int
    name: str
    tx_hash: str
    args: str


def _payment(event: EventFact) -> _Payment:
    return _Payment(
        session_id=event.subject,
        through_seq=int(event.args.get("throughSeq", 0)),
        name=event.name,
        tx_hash=event.tx_hash,
        args=json.dumps(event.args, sort_keys=True),
    )


def _present_sessions(rows: dict[str, Columns]) -> dict[str, SessionFacts]:
    return {key: SessionFacts(**columns) for key, columns in rows.items() if columns["opened_block"] > 0}


def _present_nodes(rows: dict[int, Columns]) -> dict[int, NodeFacts]:
    return {key: NodeFacts(**columns) for key, columns in rows.items() if columns["epoch"] > 0}


def _amounts(held: SessionFacts) -> tuple[int, int, int]:
    return held.deposited_atoms, held.paid_atoms, held.claimed_atoms


def _has_clamped(world: World) -> bool:
    amounts = [*world.accounts.values()]
    amounts += [amount for s in world.sessions.values() for amount in _amounts(s)]
    amounts += [node.earnings_atoms for node in world.nodes.values()]
    return any(abs(amount) >= MAX_ATOMS for amount in amounts)

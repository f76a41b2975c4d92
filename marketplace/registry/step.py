"""Events into rows: forward one batch at a time, or anew after a reorganisation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from marketplace.registry import rules
from marketplace.registry.rules import NodeFacts, SessionFacts, Touched, World
from marketplace.store import events as chain_log
from marketplace.store import projection
from marketplace.store.events import EventFact, Settlement
from marketplace.store.projection import MAX_ATOMS, Columns
from marketplace.store.tables import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The chain pays a session's orders up to `through_seq`, by `tx_hash`; and none above, so far.

    `tx_hash` is None where a payment was taken back and nothing new was paid.
    """

    session_id: str
    through_seq: int
    tx_hash: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What taking in some events changed. Standings are to be told in this order."""

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
    fresh = chain_log.add_events(db, events)
    folded_to = cursor if rollback_to is None else min(cursor, rollback_to)
    if removed or any(event.block_number <= folded_to for event in fresh):
        refold(db, rules.touched([*removed, *fresh]))
    elif fresh:
        _advance(db, fresh)
    return Taken(fresh=fresh, removed=removed, standings=_standings(db, removed, fresh))


def replace_all(db: Tx, events: Sequence[EventFact]) -> Taken:
    """Replaces every stored event and derives everything anew; blocks stay."""
    removed = chain_log.cut(db, 0)
    fresh = chain_log.add_events(db, events)
    rebuild(db)
    return Taken(fresh=fresh, removed=removed, standings=_standings(db, removed, fresh))


def untold(db: Tx) -> list[Standing]:
    """Standings of sessions that have jobs the chain paid and nobody marked: their receipts came late."""
    late = sorted(projection.sessions_paid_unseen(db))
    return [_standing(paid) for session_id in late for paid in chain_log.settlements(db, session_id)]


def refold(db: Tx, named: Touched) -> None:
    """Derives aggregates from all their events anew, and those that depend on them."""
    known = [SessionFacts(**columns) for columns in projection.sessions(db, named.sessions).values()]
    buyers = named.buyers | {held.buyer for held in known}
    node_ids = named.nodes | {held.node_id for held in known} | projection.nodes_of(db, named.owners)
    owners = named.owners | {columns["owner"] for columns in projection.nodes(db, node_ids).values()}
    subjects = named.sessions | projection.sessions_of(db, buyers, node_ids) | buyers | owners
    subjects |= {rules.node_subject(node_id) for node_id in node_ids}
    world = rules.fold(World(), chain_log.events_about(db, subjects))
    # The fold also has parts of neighbours in it, of which not every event was read: those are not saved.
    _save(db, world, buyers=buyers, sessions=named.sessions, node_ids=node_ids)


def rebuild(db: Tx) -> None:
    """Derives every account, session and node from the stored events anew."""
    world = rules.fold(World(), chain_log.all_events(db))
    buyers, sessions, node_ids = projection.known_keys(db)
    _save(
        db,
        world,
        buyers=buyers | set(world.accounts),
        sessions=sessions | set(world.sessions),
        node_ids=node_ids | set(world.nodes),
    )


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
) -> None:
    projection.put_accounts(db, {key: world.accounts[key] for key in buyers if key in world.accounts})
    projection.forget_accounts(db, [key for key in buyers if key not in world.accounts])
    projection.put_sessions(db, {k: asdict(world.sessions[k]) for k in sessions if k in world.sessions})
    projection.void_sessions(db, [key for key in sessions if key not in world.sessions])
    projection.put_nodes(db, {key: asdict(world.nodes[key]) for key in node_ids if key in world.nodes})
    projection.void_nodes(db, [key for key in node_ids if key not in world.nodes])


def _standings(db: Tx, removed: Sequence[EventFact], fresh: Sequence[EventFact]) -> list[Standing]:
    were = {_payment(event) for event in removed if event.name == "VoucherSettled"}
    are = {_payment(event) for event in fresh if event.name == "VoucherSettled"}
    # A transaction that only moved to another block still pays the same jobs: nothing to tell.
    gone, new = were - are, are - were
    found: list[Standing] = []
    for session_id in sorted({owner for owner, _, _ in gone | new}):
        first_gone = min((seq for owner, seq, _ in gone if owner == session_id), default=None)
        stands, kept = chain_log.settlements(db, session_id), 0
        while kept < len(stands) and not _is_news(stands[kept], new, first_gone):
            kept += 1
        if first_gone is not None:
            through_seq = stands[kept - 1].through_seq if kept else 0
            found.append(Standing(session_id=session_id, through_seq=through_seq, tx_hash=None))
        found += [_standing(paid) for paid in stands[kept:]]
    return found


def _is_news(paid: Settlement, new: set[tuple[str, int, str]], first_gone: int | None) -> bool:
    return _key(paid) in new or (first_gone is not None and paid.through_seq >= first_gone)


def _standing(paid: Settlement) -> Standing:
    return Standing(session_id=paid.session_id, through_seq=paid.through_seq, tx_hash=paid.tx_hash)


def _payment(event: EventFact) -> tuple[str, int, str]:
    return _key(chain_log.settlement(event))


def _key(settlement: Settlement) -> tuple[str, int, str]:
    return settlement.session_id, settlement.through_seq, settlement.tx_hash


def _present_sessions(rows: dict[str, Columns]) -> dict[str, SessionFacts]:
    return {key: SessionFacts(**columns) for key, columns in rows.items() if columns["opened_block"] > 0}


def _present_nodes(rows: dict[int, Columns]) -> dict[int, NodeFacts]:
    return {key: NodeFacts(**columns) for key, columns in rows.items() if columns["epoch"] > 0}


def _has_clamped(world: World) -> bool:
    amounts = [*world.accounts.values()]
    amounts += [amount for s in world.sessions.values() for amount in (s.deposited_atoms, s.paid_atoms)]
    amounts += [node.earnings_atoms for node in world.nodes.values()]
    return any(abs(amount) >= MAX_ATOMS for amount in amounts)

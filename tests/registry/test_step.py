from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

import pytest
from sqlmodel import select

from marketplace.protocol.errors import Broken, ChainTrouble
from marketplace.registry import rules, step
from marketplace.registry.step import Standing, Taken
from marketplace.store import events as chain_log
from marketplace.store import projection
from marketplace.store.engine import Store
from marketplace.store.events import BlockFact, EventFact
from marketplace.store.projection import MAX_ATOMS
from marketplace.store.tables import ModelAliasRow, NodeRow, SessionRow
from tests.registry.histories import Chain, address, event, node_added, opened, session_id, settled

BUYER = address(1)


def take(store: Store, events: list[EventFact], cursor: int = 0, rollback_to: int | None = None) -> Taken:
    with store.transaction() as db:
        return step.take_in(db, events, cursor=cursor, rollback_to=rollback_to)


def mirror(store: Store) -> dict[str, Any]:
    """What the chain has, as the store sees it."""
    with store.reading() as db:
        buyers, sessions, nodes = projection.known_keys(db)
        return {
            "accounts": projection.accounts(db, buyers),
            "sessions": {k: v for k, v in projection.sessions(db, sessions).items() if v["opened_block"]},
            "nodes": {k: v for k, v in projection.nodes(db, nodes).items() if v["epoch"]},
            "aliases": {row.alias: row.model_dump() for row in db.exec(select(ModelAliasRow))},
        }


def folded(events: list[EventFact]) -> dict[str, Any]:
    world = rules.fold(rules.World(), events)
    return {
        "accounts": world.accounts,
        "sessions": {key: asdict(facts) for key, facts in world.sessions.items()},
        "nodes": {key: asdict(facts) for key, facts in world.nodes.items()},
        "aliases": {key: asdict(facts) for key, facts in world.aliases.items()},
    }


@pytest.mark.parametrize("seed", range(12))
def test_after_any_batches_and_reorganisations_the_store_is_the_fold_of_the_chain(
    store: Store, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    chain, cursor = Chain(chance), 0
    for turn in range(1, 25):
        rollback_to = None
        if chance.random() < 0.35 and chain.head:
            rollback_to = chance.randrange(max(0, chain.head - 8), chain.head)
            chain = chain.branch(rollback_to, turn)
            cursor = rollback_to
        for _ in range(chance.randrange(1, 5)):
            chain.grow()
        news = [e for e in chain.events if e.block_number > cursor - 2]
        take(store, news, cursor, rollback_to)
        cursor = chain.head
        assert mirror(store) == folded(chain.events)
    with store.reading() as db:
        assert chain_log.all_events(db) == chain.events


def test_an_event_met_again_changes_nothing(store: Store) -> None:
    deposited = event("Deposited", 1, buyer=BUYER, amount=5)
    take(store, [deposited])
    again = take(store, [deposited], cursor=1)
    assert (again.fresh, mirror(store)["accounts"]) == ([], {BUYER: 5})


def test_an_event_that_was_missed_below_the_cursor_is_folded_in_its_place(store: Store) -> None:
    first, second = opened(block=1), settled(1, 3, 40, block=2)
    take(store, [event("Deposited", 1, 5, buyer=BUYER, amount=500), first])
    take(store, [settled(1, 9, 90, block=5)], cursor=4)
    taken = take(store, [second], cursor=5)
    assert mirror(store)["sessions"][session_id(1)]["paid_atoms"] == 90
    assert taken.standings == [Standing(session_id=session_id(1), after_seq=0)]


def test_a_session_that_a_reorganisation_takes_keeps_its_promises_and_has_no_money(store: Store) -> None:
    take(store, [event("Deposited", 1, buyer=BUYER, amount=500), opened(block=2)])
    with store.transaction() as db:
        row = db.get(SessionRow, session_id(1))
        assert row is not None
        row.next_seq, row.reserved_atoms, row.owed_atoms = 7, 30, 20
    take(store, [], 2, rollback_to=1)
    with store.reading() as db:
        gone = db.get(SessionRow, session_id(1))
    assert gone is not None
    assert (gone.deposited_atoms, gone.closed, gone.opened_block) == (0, False, 0)
    take(store, [opened(block=3)], 1)
    with store.reading() as db:
        back = db.get(SessionRow, session_id(1))
    assert back is not None
    assert (back.deposited_atoms, back.opened_block) == (100, 3)
    assert (back.next_seq, back.reserved_atoms, back.owed_atoms) == (7, 30, 20)


def test_promises_survive_every_fold(store: Store) -> None:
    take(store, [node_added(), opened(block=1, index=1)])
    with store.transaction() as db:
        session, node = db.get(SessionRow, session_id(1)), db.get(NodeRow, 1)
        assert session is not None
        assert node is not None
        session.reserved_atoms, node.connected, node.free_slots = 11, True, 3
    take(store, [settled(1, 1, 10)], 1)
    with store.transaction() as db:
        step.rebuild(db)
    with store.reading() as db:
        session, node = db.get(SessionRow, session_id(1)), db.get(NodeRow, 1)
        assert session is not None
        assert node is not None
        assert (session.reserved_atoms, session.paid_atoms) == (11, 10)
        assert (node.connected, node.free_slots, node.earnings_atoms) == (True, 3, 10)


def test_a_node_the_chain_no_longer_has_holds_no_key_and_no_stake(store: Store) -> None:
    take(store, [event("Staked", 1, owner=address(50), amount=9, staked=9), node_added(block=2)])
    take(store, [], 2, rollback_to=1)
    with store.reading() as db:
        row = db.get(NodeRow, 1)
    assert row is not None
    assert (row.epoch, row.stake_atoms, row.signer) == (0, 0, address(0))
    take(store, [node_added(block=3, owner=address(51))], 1)
    assert mirror(store)["nodes"][1]["owner"] == address(51)
    assert mirror(store)["nodes"][1]["stake_atoms"] == 0


def test_stake_laid_down_before_the_node_counts(store: Store) -> None:
    take(store, [event("Staked", 1, owner=address(50), amount=9, staked=9)])
    take(store, [node_added(block=2)], 1)
    assert mirror(store)["nodes"][1]["stake_atoms"] == 9


def test_a_payment_is_told_from_what_was_settled_before(store: Store) -> None:
    take(store, [opened(block=1), settled(1, 3, 40, block=2, tx=8)])
    taken = take(store, [settled(1, 5, 60, block=3, tx=9)], 2)
    assert taken.standings == [Standing(session_id=session_id(1), after_seq=3)]


def test_a_payment_that_is_taken_back_is_told(store: Store) -> None:
    take(store, [opened(block=1), settled(1, 3, 40, block=2, tx=8), settled(1, 5, 60, block=3, tx=9)])
    taken = take(store, [], 3, rollback_to=2)
    assert taken.standings == [Standing(session_id=session_id(1), after_seq=3)]


def test_a_payment_that_only_moved_to_another_block_is_not_told(store: Store) -> None:
    take(store, [opened(block=1), settled(1, 3, 40, block=2, tx=8)])
    taken = take(store, [settled(1, 3, 40, block=4, tx=8, fork=1)], 2, rollback_to=1)
    assert taken.standings == []
    assert mirror(store)["sessions"][session_id(1)]["paid_atoms"] == 40


def test_an_earlier_payment_that_vanishes_is_told_though_the_later_one_stands(store: Store) -> None:
    later = {"tx": 9}
    take(store, [opened(block=1), settled(1, 3, 40, block=2, tx=8), settled(1, 5, 60, block=3, **later)])
    taken = take(store, [settled(1, 5, 60, block=3, fork=1, **later)], 3, rollback_to=1)
    assert taken.standings == [Standing(session_id=session_id(1), after_seq=0)]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("Claimed", {"throughSeq": 5, "amount": 9, "finalAt": 9, "receiptHashes": ["0xaa"]}),
        ("ClaimHeld", {"receiptHash": "0xaa", "amount": 9}),
        ("ClaimResolved", {"receiptHash": "0xaa", "amount": 9, "isPaid": True}),
    ],
)
def test_whatever_becomes_of_a_claim_is_told(store: Store, name: str, more: dict[str, Any]) -> None:
    take(store, [opened(block=1)])
    taken = take(store, [event(name, 2, sessionId=session_id(1), **more)], 1)
    assert taken.standings == [Standing(session_id=session_id(1), after_seq=0)]
    assert take(store, [], 2, rollback_to=1).standings == taken.standings


def test_another_event_at_a_known_place_means_the_chain_moved(store: Store) -> None:
    take(store, [event("Deposited", 1, buyer=BUYER, amount=5)])
    with pytest.raises(ChainTrouble, match="moved"):
        take(store, [event("Deposited", 1, fork=1, buyer=BUYER, amount=5)], 1)
    assert mirror(store)["accounts"] == {BUYER: 5}


def test_a_hole_in_the_events_stores_nothing(store: Store) -> None:
    with pytest.raises(Broken):
        take(store, [event("Deposited", 1, buyer=BUYER, amount=5), settled(1, 1, 1, block=1, index=1)])
    with store.reading() as db:
        assert chain_log.count_events(db) == 0


def test_an_amount_above_a_column_does_not_stop_the_fold_and_is_exact_again_below(store: Store) -> None:
    huge = 2**90
    take(store, [event("Deposited", 1, buyer=BUYER, amount=huge)])
    assert mirror(store)["accounts"] == {BUYER: MAX_ATOMS}
    take(store, [event("Withdrawn", 2, buyer=BUYER, to=BUYER, amount=huge - 7)], 1)
    assert mirror(store)["accounts"] == {BUYER: 7}


def test_text_a_database_cannot_hold_does_not_stop_the_fold(store: Store) -> None:
    take(store, [node_added(), event("MetadataSet", 2, nodeId=1, uri="a\0b" + "x" * 9000)])
    assert mirror(store)["nodes"][1]["uri"].startswith("a\ufffdb")
    assert len(mirror(store)["nodes"][1]["uri"]) == projection.MAX_URI


def test_rebuilding_from_the_events_repairs_every_row(store: Store) -> None:
    chain = Chain(random.Random(3))  # noqa: S311
    for _ in range(20):
        chain.grow()
    take(store, chain.events)
    with store.transaction() as db:
        db.add(SessionRow(**(asdict(_session(chain)) | {"session_id": session_id(7)})))
        projection.put_accounts(db, {BUYER: 123_456, address(999): 1})
        db.add(ModelAliasRow(alias="m@gone", model_id="0x", publisher="0x", fixed=True, block_number=1))
    with store.transaction() as db:
        step.rebuild(db)
    assert mirror(store) == folded(chain.events)


def test_replacing_all_events_tells_what_changed(store: Store) -> None:
    take(store, [opened(block=1), settled(1, 3, 40, block=2, tx=8)])
    with store.transaction() as db:
        chain_log.put_blocks(db, [BlockFact(number=2, hash="0x", timestamp=1)], keep=9)
        fresh = [opened(block=1), settled(1, 3, 40, block=2, tx=8), settled(1, 4, 50, block=2, index=1, tx=9)]
        taken = step.replace_all(db, fresh)
    assert taken.standings == [Standing(session_id=session_id(1), after_seq=3)]
    with store.reading() as db:
        assert chain_log.cursor(db) == BlockFact(number=2, hash="0x", timestamp=1)


def _session(chain: Chain) -> rules.SessionFacts:
    return next(iter(rules.fold(rules.World(), chain.events).sessions.values()))


def test_voucher_is_known_by_the_first_24_bytes_of_its_session(store: Store) -> None:
    full = session_id(7)
    take(store, [node_added(), event("Deposited", 1, 1, buyer=BUYER, amount=500), opened(7, 1, 2)])
    taken = take(store, [settled(7, 3, 40, 3, sessionId=full[:50] + "ab" * 8)], cursor=2)
    assert [fact.subject for fact in taken.fresh] == [full]
    assert mirror(store)["sessions"][full]["paid_atoms"] == 40
    # Opened and settled in what is read at one go.
    both = [opened(8, 4), settled(8, 1, 5, 4, 1, sessionId=session_id(8)[:50] + "00" * 8)]
    assert [fact.subject for fact in take(store, both, cursor=3).fresh] == [session_id(8), session_id(8)]

from __future__ import annotations

from dataclasses import replace

import pytest

from marketplace.protocol.errors import ChainTrouble
from marketplace.store import events as chain_log
from marketplace.store.engine import Store
from marketplace.store.events import BlockFact
from tests.registry.histories import address, event, opened, session_id, settled


def block(number: int) -> BlockFact:
    return BlockFact(number=number, hash=f"0x{number:064x}", timestamp=number)


def test_events_come_back_as_they_were_and_in_chain_order(store: Store) -> None:
    made = [event("Deposited", 2, 1, buyer=address(1), amount=2**100), event("Deposited", 1, 9, buyer="é")]
    with store.transaction() as db:
        assert chain_log.add_events(db, made) == made
        assert chain_log.all_events(db) == [made[1], made[0]]


def test_an_event_is_stored_once_per_place(store: Store) -> None:
    first, second = event("Deposited", 1, 0, buyer="a"), event("Deposited", 1, 1, buyer="a")
    with store.transaction() as db:
        chain_log.add_events(db, [first])
        assert chain_log.add_events(db, [first, second]) == [second]
        assert chain_log.add_events(db, []) == []
        assert chain_log.count_events(db) == 2


def test_the_same_place_in_another_block_is_refused(store: Store) -> None:
    with store.transaction() as db:
        chain_log.add_events(db, [event("Deposited", 1, buyer="a")])
        with pytest.raises(ChainTrouble):
            chain_log.add_events(db, [event("Deposited", 1, fork=1, buyer="a")])


def test_rollback_removes_blocks_and_events_above_and_returns_these(store: Store) -> None:
    made = [event("Deposited", number, buyer="a") for number in (1, 2, 3)]
    with store.transaction() as db:
        chain_log.add_events(db, made)
        chain_log.put_blocks(db, [block(1), block(2), block(3)], keep=9)
        assert chain_log.rollback(db, 1) == made[1:]
        assert chain_log.all_events(db) == made[:1]
        assert chain_log.cursor(db) == block(1)


def test_cut_removes_a_range_only(store: Store) -> None:
    made = [event("Deposited", number, buyer="a") for number in (1, 2, 3)]
    with store.transaction() as db:
        chain_log.add_events(db, made)
        assert chain_log.cut(db, 2, 2) == [made[1]]
        assert chain_log.all_events(db) == [made[0], made[2]]


def test_only_the_newest_blocks_are_kept(store: Store) -> None:
    with store.transaction() as db:
        assert chain_log.cursor(db) is None
        chain_log.put_blocks(db, [block(n) for n in range(1, 8)], keep=3)
        assert chain_log.known_blocks(db) == [block(5), block(6), block(7)]
        chain_log.put_blocks(db, [block(7), block(50)], keep=3)
        assert chain_log.known_blocks(db) == [block(50)]


def test_events_are_found_by_subject_however_many(store: Store) -> None:
    made = [event("Deposited", 1, index, buyer=f"b{index}") for index in range(1200)]
    with store.transaction() as db:
        chain_log.add_events(db, made)
        wanted = {f"b{index}" for index in range(0, 1200, 2)}
        assert chain_log.events_about(db, wanted) == made[::2]


def test_what_pays_a_session_is_found_with_its_block(store: Store) -> None:
    first, second = settled(1, 3, 40, block=2, tx=8), settled(1, 9, 90, block=5, tx=9)
    with store.transaction() as db:
        chain_log.add_events(db, [opened(block=1), first, second, settled(2, 5, 9, block=6, tx=7)])
        assert chain_log.payments(db, session_id(1)) == [first, second]
        assert [chain_log.settled_through(db, session_id(1), below) for below in (3, 4, 10)] == [0, 3, 9]
        assert chain_log.block_of(db, session_id(1), second.tx_hash) == 5
        assert chain_log.block_of(db, session_id(2), second.tx_hash) is None


def test_parts_of_a_log_have_places_of_their_own_however_many(store: Store) -> None:
    many = [replace(settled(1, part + 1, part, block=2, index=7), part=part) for part in range(4_100)]
    following = [replace(settled(2, part + 1, part, block=2, index=8), part=part) for part in range(5)]
    with store.transaction() as db:
        assert len(chain_log.add_events(db, [*many, *following])) == 4_105
        assert chain_log.add_events(db, following) == []
        assert chain_log.all_events(db)[-6:] == [many[-1], *following]

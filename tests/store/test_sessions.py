from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from marketplace.protocol.errors import LostRace
from marketplace.store import sessions
from marketplace.store.tables import SessionRow


@pytest.fixture
def session_id(store):
    with store.transaction() as tx:
        tx.add(
            SessionRow(
                session_id="0x01",
                buyer="0xb",
                key="0xk",
                node_id=1,
                key_epoch=1,
                deposited_atoms=100,
                paid_atoms=20,
                through_seq=1,
                expires_at=10,
                opened_block=1,
                owed_atoms=30,
            )
        )
    return "0x01"


def row(store, session_id):
    with store.reading() as tx:
        return sessions.find(tx, session_id)


def test_reservation_takes_the_next_seq_and_never_more_than_is_left(store, session_id):
    with store.transaction() as tx:
        assert sessions.reserve(tx, session_id, 40) == 1
        assert sessions.reserve(tx, session_id, 30) == 2
        with pytest.raises(LostRace):
            sessions.reserve(tx, session_id, 1)
    found = row(store, session_id)
    assert (found.reserved_atoms, found.next_seq, sessions.left_atoms(found)) == (70, 3, 0)


def test_reservation_counts_what_the_chain_paid_when_that_is_more(store, session_id):
    with store.transaction() as tx:
        tx.get(SessionRow, session_id).paid_atoms = 95
    with store.transaction() as tx, pytest.raises(LostRace):
        sessions.reserve(tx, session_id, 6)


def test_closed_or_unknown_session_reserves_nothing(store, session_id):
    with store.transaction() as tx:
        tx.get(SessionRow, session_id).closed = True
    with store.transaction() as tx:
        for name in (session_id, "0x02"):
            with pytest.raises(LostRace):
                sessions.reserve(tx, name, 1)
            with pytest.raises(LostRace):
                sessions.reserve_at(tx, name, 1, 5)


def test_chosen_seq_moves_the_next_one_on_and_never_back(store, session_id):
    with store.transaction() as tx:
        sessions.reserve_at(tx, session_id, 5, 7)
        sessions.reserve_at(tx, session_id, 5, 3)
    assert row(store, session_id).next_seq == 8


def test_release_frees_the_reservation_and_books_what_is_owed(store, session_id):
    with store.transaction() as tx:
        sessions.reserve(tx, session_id, 40)
        sessions.release(tx, session_id, reserved_atoms=40, owed_atoms=12)
    found = row(store, session_id)
    assert (found.reserved_atoms, found.owed_atoms) == (0, 42)


def test_fifty_threads_never_reserve_more_than_the_session_holds(store, session_id):
    def one(_):
        try:
            with store.transaction() as tx:
                return sessions.reserve(tx, session_id, 10)
        except LostRace:
            return None

    with ThreadPoolExecutor(8) as pool:
        seqs = list(pool.map(one, range(50)))
    assert sorted(seq for seq in seqs if seq) == [1, 2, 3, 4, 5, 6, 7]
    assert row(store, session_id).reserved_atoms == 70

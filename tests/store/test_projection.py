from __future__ import annotations

from typing import Any

from marketplace.protocol.phases import JobPhase
from marketplace.store import projection
from marketplace.store.engine import Store
from marketplace.store.projection import MAX_ATOMS, NODE_COLUMNS, SESSION_COLUMNS
from marketplace.store.tables import NodeRow, SessionRow
from tests.keeper.market import plant_job
from tests.registry.histories import address, session_id


def session(number: int = 1, **changes: Any) -> dict[str, Any]:
    columns = {
        "session_id": session_id(number),
        "buyer": address(1),
        "key": address(90),
        "node_id": 1,
        "key_epoch": 1,
        "deposited_atoms": 100,
        "paid_atoms": 40,
        "claimed_atoms": 0,
        "through_seq": 3,
        "expires_at": 5000,
        "closed": False,
        "opened_block": 7,
    }
    return columns | changes


def node(node_id: int = 1, **changes: Any) -> dict[str, Any]:
    columns = {
        "node_id": node_id,
        "owner": address(50),
        "epoch": 1,
        "signer": address(60),
        "encryption_key": "0x07",
        "settler": address(70),
        "uri": "",
        "stake_atoms": 9,
        "earnings_atoms": 4,
    }
    return columns | changes


def put(store: Store, *sessions: dict[str, Any]) -> None:
    with store.transaction() as db:
        projection.put_sessions(db, {columns["session_id"]: columns for columns in sessions})


def test_every_chain_column_is_named_and_no_promise_is_among_them() -> None:
    promised = {"next_seq", "reserved_atoms", "owed_atoms"}
    assert {*SESSION_COLUMNS} == {*SessionRow.model_fields} - promised
    heard = {"last_seen_ms", "free_slots", "queue_depth", "connected", "draining"}
    assert {*NODE_COLUMNS} == {*NodeRow.model_fields} - heard


def test_facts_come_back_as_they_were_put(store: Store) -> None:
    put(store, session(1), session(2, closed=True))
    put(store, session(1, paid_atoms=50))
    with store.transaction() as db:
        projection.put_nodes(db, {1: node()})
        projection.put_nodes(db, {1: node(epoch=2), 2: node(2)})
        projection.put_accounts(db, {address(1): 5})
        projection.put_accounts(db, {address(1): 6, address(2): 7})
    with store.reading() as db:
        found = projection.sessions(db, {session_id(1), session_id(2), session_id(3)})
        assert found == {session_id(1): session(1, paid_atoms=50), session_id(2): session(2, closed=True)}
        assert projection.nodes(db, {1, 2, 3}) == {1: node(epoch=2), 2: node(2)}
        assert projection.accounts(db, {address(1), address(2)}) == {address(1): 6, address(2): 7}


def test_amounts_stop_at_what_a_column_holds(store: Store) -> None:
    put(store, session(1, deposited_atoms=2**64 - 1))
    with store.transaction() as db:
        projection.put_accounts(db, {address(1): 2**100, address(2): -(2**100)})
        assert projection.accounts(db, {address(1), address(2)}) == {
            address(1): MAX_ATOMS,
            address(2): -MAX_ATOMS,
        }
        assert projection.sessions(db, {session_id(1)})[session_id(1)]["deposited_atoms"] == MAX_ATOMS


def test_relations_are_found(store: Store) -> None:
    put(store, session(1), session(2, buyer=address(2), node_id=2), session(3, buyer=address(3), node_id=3))
    with store.transaction() as db:
        projection.put_nodes(db, {1: node(), 2: node(2, owner=address(51))})
        assert projection.nodes_of(db, {address(51)}) == {2}
        assert projection.sessions_of(db, {address(1)}, {2}) == {session_id(1), session_id(2)}
        assert projection.known_keys(db) == (set(), {session_id(n) for n in (1, 2, 3)}, {1, 2})


def test_pages_go_through_everything_in_order(store: Store) -> None:
    put(store, *(session(number) for number in range(1, 6)))
    with store.transaction() as db:
        projection.put_nodes(db, {n: node(n) for n in range(1, 4)})
        projection.put_accounts(db, {address(n): n for n in range(1, 4)})
        assert [*projection.sessions_from(db, "", 2)] == [session_id(1), session_id(2)]
        assert [*projection.sessions_from(db, session_id(4), 2)] == [session_id(5)]
        assert [*projection.nodes_from(db, 1, 9)] == [2, 3]
        assert projection.accounts_from(db, address(2), 9) == {address(3): 3}


def test_the_escrow_owes_accounts_open_sessions_and_earnings(store: Store) -> None:
    with store.reading() as db:
        assert projection.owed_atoms(db) == 0
    put(store, session(1), session(2, closed=True))
    with store.transaction() as db:
        projection.put_accounts(db, {address(1): 5})
        projection.put_nodes(db, {1: node()})
        assert projection.owed_atoms(db) == 5 + (100 - 40) + 4
    # Of what is claimed, the deposit of an open session has it already.
    put(store, session(1, claimed_atoms=20), session(2, claimed_atoms=30, closed=True))
    with store.reading() as db:
        assert projection.owed_atoms(db) == 5 + (100 - 40) + 30 + 4


def test_what_the_chain_lost_has_no_money_and_no_key(store: Store) -> None:
    put(store, session(1))
    with store.transaction() as db:
        projection.put_nodes(db, {1: node()})
        projection.put_accounts(db, {address(1): 5})
        projection.void_sessions(db, {session_id(1), session_id(2)})
        projection.void_nodes(db, {1, 2})
        projection.forget_accounts(db, {address(1), address(2)})
    with store.reading() as db:
        assert projection.owed_atoms(db) == 0
        assert projection.nodes(db, {1})[1]["signer"] == address(0)
        assert projection.accounts(db, {address(1)}) == {}


def test_paid_jobs_that_nobody_marked_are_found(store: Store) -> None:
    put(store, session(1, through_seq=3), session(2, through_seq=3), session(3, through_seq=3))
    plant_job(store, session_id(1), 2, JobPhase.DELIVERED)
    plant_job(store, session_id(1), 3, JobPhase.ACKNOWLEDGED)
    plant_job(store, session_id(2), 4, JobPhase.ACKNOWLEDGED)
    plant_job(store, session_id(3), 3, JobPhase.SETTLED)
    with store.reading() as db:
        assert projection.sessions_paid_unseen(db) == {session_id(1): 2}

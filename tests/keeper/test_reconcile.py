from __future__ import annotations

import functools
from pathlib import Path

import pytest

from marketplace.chain import calls
from marketplace.keeper.follow import Follower, OnSettled
from marketplace.keeper.reconcile import Reconciler
from marketplace.protocol.phases import JobPhase
from marketplace.settlement import step as settlement
from marketplace.store import events as chain_log
from marketplace.store.engine import Store
from marketplace.store.tables import AccountRow, NodeRow, SessionRow
from marketplace.telemetry.metrics import Metrics
from tests.hardhat import Chain
from tests.keeper.market import BUYER, Market, Told, job, mirror, plant_job
from tests.keeper.stores import sqlite_store

pytestmark = pytest.mark.chain


@pytest.fixture
def market(chain: Chain) -> Market:
    return Market(chain)


@pytest.fixture
def ours(tmp_path: Path) -> Store:
    return sqlite_store(tmp_path)


def parts(market: Market, store: Store, **more: object) -> tuple[Follower, Reconciler]:
    follower = Follower(market.chain.client, store, Told())
    return follower, Reconciler(market.chain.client, store, follower.read_anew, on_settled(market), **more)  # type: ignore[arg-type]


def on_settled(market: Market) -> OnSettled:
    return functools.partial(settlement.on_settled, market.chain.deployment.domain)


STRANGER = "0xFFfFfFffFFfffFFfFFfFFFFFffFFFffffFfFFFfF"
PLANTED = {
    "account": (AccountRow, "balance_atoms"),
    "session": (SessionRow, "deposited_atoms"),
    "session paid": (SessionRow, "paid_atoms"),
    "node": (NodeRow, "earnings_atoms"),
    "node stake": (NodeRow, "stake_atoms"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_one_atom_of_difference_is_found_and_healed(market: Market, ours: Store, planted: str) -> None:
    table, column = PLANTED[planted]
    metrics = Metrics()
    follower, reconciler = parts(market, ours, metrics=metrics)
    terms = market.everything()
    follower.step()
    right = mirror(ours)
    key = {
        AccountRow: BUYER.address,
        SessionRow: market.id_of(terms),
        NodeRow: market.node_id,
    }[table]
    with ours.transaction() as db:
        row = db.get(table, key)
        setattr(row, column, getattr(row, column) + 1)
    found = [d for d in reconciler.step().differences if d.kind != "escrow"]
    assert [(d.kind, d.subject, d.field, d.atoms, d.healed) for d in found] == [
        (planted.split()[0], str(key), column, 1, True)
    ]
    assert mirror(ours) == right
    assert reconciler.step().differences == []
    assert b"watt_reconcile_difference_atoms 0.0" in metrics.render()


def test_a_lost_event_is_healed_by_reading_the_chain_again(market: Market, ours: Store) -> None:
    follower, reconciler = parts(market, ours)
    market.deposit()
    follower.step()
    right = mirror(ours)
    with ours.transaction() as db:
        lost = chain_log.cut(db, right["cursor"].number)
        assert [event.name for event in lost] == ["Deposited"]
        row = db.get(AccountRow, BUYER.address)
        assert row is not None
        row.balance_atoms -= 1000
    assert [(d.kind, d.atoms, d.healed) for d in reconciler.step().differences] == [("account", 1000, True)]
    assert mirror(ours) == right


def test_an_escrow_that_holds_less_than_is_owed_is_found_and_the_chain_read_again(
    market: Market, ours: Store
) -> None:
    follower, reconciler = parts(market, ours, slice_rows=1)
    market.open()
    follower.step()
    right = mirror(ours)
    # No row of this slice is wrong, only the sum.
    with ours.transaction() as db:
        db.add(AccountRow(buyer=STRANGER, balance_atoms=5))
    assert [(d.kind, d.atoms, d.healed) for d in reconciler.step().differences] == [("escrow", 5, True)]
    assert mirror(ours) == right


def test_what_cannot_be_healed_stays_reported(market: Market, ours: Store) -> None:
    metrics = Metrics()
    Follower(market.chain.client, ours, Told()).step()
    reconciler = Reconciler(
        market.chain.client, ours, lambda: None, on_settled(market), metrics=metrics, slice_rows=1
    )
    with ours.transaction() as db:
        db.add(AccountRow(buyer=STRANGER, balance_atoms=5))
    assert [(d.kind, d.healed) for d in reconciler.step().differences] == [("escrow", False)]
    assert b"watt_reconcile_difference_atoms 5.0" in metrics.render()


def test_money_sent_to_the_escrow_unasked_is_no_difference(market: Market, ours: Store) -> None:
    follower, reconciler = parts(market, ours)
    here = market.chain.deployment
    market.chain.send(BUYER, calls.faucet(here, here.escrow, 12))
    follower.step()
    assert reconciler.step().differences == []


def test_nothing_is_said_while_the_follower_is_behind(market: Market, ours: Store) -> None:
    follower, reconciler = parts(market, ours)
    assert reconciler.step().block_number is None
    follower.step()
    market.deposit()
    assert reconciler.step().block_number is None
    follower.step()
    assert reconciler.step().block_number == market.chain.client.head().number


def test_slices_go_round_all_rows(market: Market, ours: Store) -> None:
    follower, reconciler = parts(market, ours, slice_rows=2)
    opened = {market.id_of(market.open()) for _ in range(3)}
    follower.step()
    with ours.transaction() as db:
        for session_id in opened:
            row = db.get(SessionRow, session_id)
            assert row is not None
            row.paid_atoms = 1
    found = [d.subject for _ in range(2) for d in reconciler.step().differences if d.kind == "session"]
    assert set(found) == opened


def test_jobs_whose_receipt_came_after_their_payment_are_told(market: Market, ours: Store) -> None:
    follower, reconciler = parts(market, ours)
    terms = market.open()
    paid = market.settle(terms, 2, 50)
    follower.step()
    late = plant_job(ours, market.id_of(terms), 2, JobPhase.ACKNOWLEDGED)
    open_still = plant_job(ours, market.id_of(terms), 3, JobPhase.ACKNOWLEDGED)
    reconciler.step()
    assert job(ours, late) == ("settled", "0x" + paid.tx_hash.hex())
    assert job(ours, open_still) == ("acknowledged", None)

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marketplace.chain.blocks import BlockRef
from marketplace.chain.client import ChainClient
from marketplace.chain.codec import ChainEvent
from marketplace.keeper.follow import Follower, OnSettled
from marketplace.protocol.errors import ChainTrouble
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.phases import JobPhase
from marketplace.settlement import step as settlement
from marketplace.store.engine import Store
from marketplace.telemetry.metrics import Metrics
from tests.hardhat import Chain
from tests.keeper.market import (
    BUYER,
    Cut,
    Market,
    PowerCutError,
    Told,
    assert_is_the_chain,
    job,
    mirror,
    plant_job,
    serving,
)
from tests.keeper.stores import sqlite_store

pytestmark = pytest.mark.chain


@pytest.fixture
def market(chain: Chain) -> Market:
    return Market(chain)


@pytest.fixture
def ours(tmp_path: Path) -> Store:
    return sqlite_store(tmp_path)


@pytest.fixture
def stores(tmp_path: Path) -> Callable[[], Store]:
    numbers = itertools.count()
    return lambda: sqlite_store(tmp_path, f"other-{next(numbers)}")


class BadRpc(ChainClient):
    """A client whose answers a test can spoil."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.url, chain.deployment)
        self.hidden: Callable[[ChainEvent], bool] = lambda _event: False
        self.spoilt_block: int | None = None
        self.spared = 0

    def events(self, first: int, last: int) -> list[ChainEvent]:
        return [event for event in super().events(first, last) if not self.hidden(event)]

    def block(self, number: int) -> BlockRef | None:
        found = super().block(number)
        if found is None or number != self.spoilt_block:
            return found
        self.spared -= 1
        if self.spared >= 0:
            return found
        self.spoilt_block = None
        return BlockRef(number=number, hash=b"\x66" * 32, parent=found.parent, timestamp=found.timestamp)


def test_the_store_is_the_contracts_to_the_atom(
    market: Market, ours: Store, stores: Callable[[], Store]
) -> None:
    market.everything()
    follower = Follower(market.chain.client, ours, Told())
    followed = follower.step()
    assert (followed.lag_blocks, followed.head) == (0, market.chain.client.head().number)
    assert follower.last == followed
    assert_is_the_chain(ours, market.chain, stores())
    # Three atoms of stake are in the delay, so the minimum is no longer met.
    assert not serving(ours, market.node_id, market.chain.deployment.min_stake_atoms)


def test_a_turn_without_news_changes_nothing(market: Market, ours: Store) -> None:
    follower = Follower(market.chain.client, ours, Told())
    follower.step()
    before = mirror(ours)
    assert follower.step().events == 0
    assert mirror(ours) == before


def test_small_ranges_give_the_same_as_one(market: Market, ours: Store, stores: Callable[[], Store]) -> None:
    market.everything()
    Follower(market.chain.client, ours, Told(), range_blocks=1).step()
    assert_is_the_chain(ours, market.chain, stores())


@pytest.mark.parametrize("depth", range(1, 9))
def test_a_reorganisation_leaves_the_fold_of_the_new_chain(
    market: Market, ours: Store, stores: Callable[[], Store], depth: int
) -> None:
    metrics = Metrics()
    follower = Follower(market.chain.client, ours, Told(), metrics=metrics, range_blocks=3)
    kept = market.open()
    follower.step()
    fork = market.chain.client.head().number
    with market.chain.node.reorganised():
        _blocks(market, kept, depth)
        follower.step()
        assert follower.last is not None
        assert follower.last.cursor == fork + depth
    assert follower.step().rolled_back_to == fork
    assert_is_the_chain(ours, market.chain, stores())
    assert b"watt_reorgs_total 1.0" in metrics.render()
    assert b"watt_indexer_lag_blocks 0.0" in metrics.render()


@pytest.mark.parametrize("depth", [1, 3, 8])
def test_transactions_mined_again_in_other_blocks_count_once(
    market: Market, ours: Store, stores: Callable[[], Store], depth: int
) -> None:
    follower = Follower(market.chain.client, ours, Told())
    kept = market.open()
    follower.step()
    before = market.chain.client.account_atoms(BUYER.address)
    with market.chain.node.reorganised():
        records = _blocks(market, kept, depth)
        follower.step()
        after = market.chain.client.account_atoms(BUYER.address)
    with market.chain.node.held():
        for record in records:
            market.chain.client.broadcast(record.raw)
        market.chain.node.mine()
    follower.step()
    assert_is_the_chain(ours, market.chain, stores())
    assert mirror(ours)["accounts"][BUYER.address] == after != before


def test_a_shorter_chain_that_agrees_undoes_nothing(market: Market, ours: Store) -> None:
    follower = Follower(market.chain.client, ours, Told())
    before = market.chain.node.snapshot()
    market.deposit()
    follower.step()
    whole = mirror(ours)
    market.chain.node.revert(before)
    assert follower.step().rolled_back_to is None
    assert mirror(ours) == whole


def test_a_settlement_that_is_dropped_takes_its_jobs_back_until_it_is_mined_again(
    market: Market, ours: Store
) -> None:
    follower = Follower(market.chain.client, ours, on_settled(market))
    terms = market.open()
    follower.step()
    jobs = [plant_job(ours, market.id_of(terms), seq, JobPhase.ACKNOWLEDGED) for seq in (1, 2, 3)]
    with market.chain.node.reorganised():
        record = market.settle(terms, 2, 50)
        follower.step()
        paid = ("settled", to_hex(record.tx_hash))
        assert [job(ours, job_id) for job_id in jobs] == [paid, paid, ("acknowledged", None)]
    follower.step()
    assert [job(ours, job_id) for job_id in jobs] == [("acknowledged", None)] * 3
    market.chain.client.broadcast(record.raw)
    follower.step()
    assert [job(ours, job_id) for job_id in jobs] == [paid, paid, ("acknowledged", None)]


def test_a_power_cut_anywhere_leaves_the_fold_of_the_chain(
    market: Market, ours: Store, stores: Callable[[], Store]
) -> None:
    terms = market.everything()
    whole = Follower(market.chain.client, ours, on_settled(market))
    whole.step()
    points: set[str] = set()
    for at in itertools.count():
        store, cut = stores(), Cut(at)
        job_id = plant_job(store, market.id_of(terms), 5, JobPhase.ACKNOWLEDGED)
        try:
            Follower(market.chain.client, store, on_settled(market), range_blocks=9, probe=cut).step()
        except PowerCutError as point:
            points.add(str(point))
        else:
            break
        _assert_whole_blocks(store, mirror(ours))
        assert (job(store, job_id)[0] == "settled") == _is_paid(store, market.id_of(terms), 5)
        Follower(market.chain.client, store, on_settled(market), range_blocks=9).step()
        assert mirror(store) == mirror(ours)
        assert job(store, job_id)[0] == "settled"
    assert points == {"follow.read", "follow.folded", "follow.told", "follow.stored", "follow.committed"}


def test_a_power_cut_in_a_reorganisation_leaves_one_of_both_chains(
    market: Market, ours: Store, stores: Callable[[], Store]
) -> None:
    kept = market.open()
    Follower(market.chain.client, ours, Told()).step()
    with market.chain.node.reorganised():
        _blocks(market, kept, 4)
        Follower(market.chain.client, ours, Told()).step()
        old = mirror(ours)
    market.deposit(77)
    fresh = stores()
    Follower(market.chain.client, fresh, Told()).step()
    for at in range(4):
        with pytest.raises(PowerCutError):
            Follower(market.chain.client, ours, Told(), probe=Cut(at)).step()
        assert mirror(ours) == old
    with pytest.raises(PowerCutError):
        Follower(market.chain.client, ours, Told(), probe=Cut(4)).step()
    assert mirror(ours) == mirror(fresh)


def test_a_newest_block_whose_logs_an_rpc_hid_is_read_again(
    market: Market, ours: Store, stores: Callable[[], Store]
) -> None:
    rpc = BadRpc(market.chain)
    follower = Follower(rpc, ours, Told())
    terms = market.open()
    follower.step()
    record = market.settle(terms, 1, 40)
    rpc.hidden = lambda event: event.tx_hash == record.tx_hash
    follower.step()
    assert mirror(ours)["sessions"][market.id_of(terms)]["paid_atoms"] == 0
    rpc.hidden = lambda _event: False
    market.deposit()
    follower.step()
    assert_is_the_chain(ours, market.chain, stores())


def test_a_hole_that_shows_later_is_filled_by_reading_the_chain_again(
    market: Market, ours: Store, stores: Callable[[], Store]
) -> None:
    rpc = BadRpc(market.chain)
    told = Told()
    follower = Follower(rpc, ours, told)
    rpc.hidden = lambda event: event.name == "SessionOpened"
    terms = market.open()
    for _ in range(4):
        market.deposit()
    follower.step()
    rpc.hidden = lambda _event: False
    market.settle(terms, 3, 40)
    follower.step()
    follower.step()
    assert_is_the_chain(ours, market.chain, stores())
    assert told.calls == [(market.id_of(terms), 0)]


@pytest.mark.parametrize(
    ("back", "spared"),
    [(0, 0), (0, 2), (1, 0), (4, 1)],
    ids=["before", "after", "with an event", "stood upon"],
)
def test_a_chain_that_moves_while_it_is_read_stores_nothing(
    market: Market, ours: Store, back: int, spared: int
) -> None:
    rpc = BadRpc(market.chain)
    follower = Follower(rpc, ours, Told())
    follower.step()
    before = mirror(ours)
    for _ in range(4):
        market.deposit()
    rpc.spoilt_block, rpc.spared = market.chain.client.head().number - back, spared
    with pytest.raises(ChainTrouble, match="moved"):
        follower.step()
    assert mirror(ours) == before
    assert follower.step().events == 4


def test_two_followers_of_one_database_do_not_fold_twice(
    market: Market, ours: Store, stores: Callable[[], Store]
) -> None:
    market.deposit()
    other = Follower(market.chain.client, ours, Told())

    def in_between(point: str) -> None:
        if point == "follow.read":
            other.step()

    market.deposit()
    with pytest.raises(ChainTrouble, match="another follower"):
        Follower(market.chain.client, ours, Told(), probe=in_between).step()
    assert_is_the_chain(ours, market.chain, stores())


def test_a_reorganisation_below_the_window_stops_and_following_anew_is_the_remedy(
    market: Market, ours: Store, stores: Callable[[], Store]
) -> None:
    follower = Follower(market.chain.client, ours, Told(), window=2)
    follower.step()
    with market.chain.node.reorganised():
        _blocks(market, market.open(), 5)
        follower.step()
    with pytest.raises(ChainTrouble, match="follow anew"):
        follower.step()
    follower.follow_anew()
    follower.step()
    fresh = stores()
    Follower(market.chain.client, fresh, Told(), window=2).step()
    assert mirror(ours) == mirror(fresh)
    assert_is_the_chain(ours, market.chain, stores())


def test_skipped_vouchers_are_counted_by_status(market: Market, ours: Store) -> None:
    metrics = Metrics()
    terms = market.open()
    market.settle(terms, 2, 150)
    market.settle(terms, 2, 150)
    Follower(market.chain.client, ours, Told(), metrics=metrics).step()
    assert b'watt_vouchers_skipped_total{status="stale"} 1.0' in metrics.render()
    assert b"watt_settlements_total 1.0" in metrics.render()


def on_settled(market: Market) -> OnSettled:
    return functools.partial(settlement.on_settled, market.chain.deployment.domain)


def _blocks(market: Market, kept: Any, count: int) -> list[Any]:
    """That many blocks of deposits, openings and settlements; returns the transactions that stand alone."""
    records = []
    for number in range(count):
        if number % 2:
            records.append(market.settle(kept, number, 100 * number))
        else:
            records.append(market.deposit(1000 + number))
    return records


def _assert_whole_blocks(store: Store, whole: dict[str, Any]) -> None:
    found = mirror(store)
    if found["cursor"] is None:
        assert found["events"] == []
        return
    upto = [event for event in whole["events"] if event.block_number <= found["cursor"].number]
    assert found["events"] == upto


def _is_paid(store: Store, session_id: str, seq: int) -> bool:
    held = mirror(store)["sessions"].get(session_id)
    return held is not None and held["through_seq"] >= seq

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from marketplace.client import mapping
from marketplace.client.aio import AsyncWattline
from marketplace.client.bundle import Bundle
from marketplace.client.purchases import Terms
from marketplace.client.verify import passed, verify_receipt
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.map_jobs import ONE, job_of, lines, map_all, paid_by_vouchers


async def test_results_come_in_the_order_of_the_file(watt: AsyncWattline, tmp_path: Path) -> None:
    statement = await map_all(watt, job_of(tmp_path, rows=9), Terms(concurrency=4))
    assert (statement.rows, statement.done, statement.failed, statement.left) == (9, 9, 0, 0)
    found = lines(tmp_path / "out.jsonl")
    assert [(row["row"], row["id"]) for row in found] == [(i + 1, f"r{i}") for i in range(9)]
    assert {(row["text"], row["status"], row["cost_atoms"]) for row in found} == {
        ("Hello, world", "done", row["cost_atoms"]) for row in found
    }


async def test_statement_is_the_sum_of_the_receipts_and_of_the_vouchers(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    statement = await map_all(watt, job_of(tmp_path, rows=8), Terms(concurrency=4))
    bundles = lines(tmp_path / "out.receipts.jsonl")
    assert all(passed(verify_receipt(bundle)) for bundle in bundles)
    receipts = [Bundle.from_json(bundle).receipt for bundle in bundles]
    assert statement.tally.jobs == len(receipts) == 8
    assert statement.tally.paid_atoms == sum(r.amount_atoms for r in receipts) == paid_by_vouchers(market)
    assert (statement.tally.units_in, statement.tally.units_out) == (40, 16)
    assert statement.tally.energy_millijoules == 12 * 8
    assert sum(share.paid_atoms for share in statement.tally.nodes.values()) == statement.tally.paid_atoms
    reserved = sum(order.max_amount_atoms for order in market.orders)
    assert statement.tally.refunded_atoms == reserved - statement.tally.paid_atoms


async def test_rows_side_by_side_are_spread_over_the_nodes(watt: AsyncWattline, tmp_path: Path) -> None:
    statement = await map_all(watt, job_of(tmp_path, rows=12), Terms(concurrency=4))
    assert set(statement.tally.nodes) == {1, 2}


async def test_rows_one_by_one_go_to_the_cheapest(watt: AsyncWattline, tmp_path: Path) -> None:
    statement = await map_all(watt, job_of(tmp_path))
    assert set(statement.tally.nodes) == {1}


async def test_only_the_nodes_wanted_are_used(watt: AsyncWattline, tmp_path: Path) -> None:
    statement = await map_all(watt, job_of(tmp_path, node_ids=(2,)), Terms(concurrency=4))
    assert set(statement.tally.nodes) == {2}
    other = dataclasses.replace(job_of(tmp_path, node_ids=(9,)), out=tmp_path / "other.jsonl")
    with pytest.raises(BadRequest, match="node 9"):
        await mapping.forecast(watt, other)


async def test_forecast_is_kept_to_and_charges_nothing(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    plan = await mapping.forecast(watt, job)
    assert market.orders == []
    assert not job.state.exists()
    assert 0 < plan.least_atoms < plan.most_atoms
    statement = await mapping.run(watt, plan, Terms(concurrency=4))
    assert sum(order.max_amount_atoms for order in market.orders) <= plan.most_atoms
    assert statement.tally.paid_atoms <= plan.most_atoms


async def test_price_that_rises_after_the_forecast_is_not_paid(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    plan = await mapping.forecast(watt, job_of(tmp_path))
    for node in market.nodes.values():
        node.price_per_job += 1_000
    statement = await mapping.run(watt, plan, ONE)
    assert (statement.done, statement.failed) == (0, 4)
    assert market.orders == []
    assert {row["code"] for row in lines(tmp_path / "out.errors.jsonl")} == {"price_above_max"}


async def test_same_job_again_pays_nothing_and_gives_the_same_results(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    first = await map_all(watt, job)
    before, orders = (tmp_path / "out.jsonl").read_text(), len(market.orders)
    for node in market.nodes.values():
        node.behaviour = "problem no_node"
    second = await map_all(watt, job)
    assert (tmp_path / "out.jsonl").read_text() == before
    assert (second.tally, len(market.orders)) == (first.tally, orders)


async def test_cap_stops_cleanly_and_a_higher_one_goes_on(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path, rows=10)
    plan = await mapping.forecast(watt, job)
    row = plan.most_atoms // 10
    capped = await mapping.run(watt, plan, Terms(concurrency=3, cap_atoms=row + 60))
    assert capped.halted_by is not None
    assert capped.halted_by.code is ErrorCode.PRICE_ABOVE_MAX
    assert 0 < capped.done < 10
    assert capped.left == 10 - capped.done
    assert capped.tally.paid_atoms <= row + 60
    assert len(lines(job.out)) == capped.done
    rest = await map_all(watt, job)
    assert (rest.done, rest.halted_by) == (10, None)
    assert len(market.orders) == 10


async def test_cap_counts_what_earlier_runs_paid(watt: AsyncWattline, tmp_path: Path) -> None:
    job = job_of(tmp_path, rows=6)
    plan = await mapping.forecast(watt, job)
    cap = Terms(concurrency=1, cap_atoms=plan.most_atoms // 6 + 30)
    first = await mapping.run(watt, plan, cap)
    again = await map_all(watt, job, cap)
    assert (again.done, again.tally) == (first.done, first.tally)


async def test_row_that_fails_at_one_node_is_done_by_another(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    market.nodes[1].behaviour = "fail"
    statement = await map_all(watt, job_of(tmp_path))
    assert (statement.done, set(statement.tally.nodes)) == (4, {2})


async def test_row_that_fails_everywhere_is_listed_uncharged_and_can_be_done_later(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    for node in market.nodes.values():
        node.behaviour = "fail"
    job = job_of(tmp_path, rows=2)
    statement = await map_all(watt, job)
    assert (statement.done, statement.failed, statement.left) == (0, 2, 0)
    assert statement.errors == tmp_path / "out.errors.jsonl"
    errors = lines(tmp_path / "out.errors.jsonl")
    assert [(row["row"], row["line"], row["code"], row["charged"]) for row in errors] == [
        (1, 1, "node_failed", False),
        (2, 2, "node_failed", False),
    ]
    for node in market.nodes.values():
        node.behaviour = "ok"
    assert (await map_all(watt, job)).done == 2
    assert not (tmp_path / "out.errors.jsonl").exists()


async def test_receipt_that_does_not_hold_is_kept_and_the_row_done_elsewhere(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    market.nodes[1].behaviour = "overcharge"
    statement = await map_all(watt, job_of(tmp_path, rows=2))
    assert (statement.done, set(statement.tally.nodes)) == (2, {2})
    assert len(statement.faults) == 2
    assert statement.uncertain_atoms == sum(
        order.max_amount_atoms for order in market.orders if order.digest(watt.desk.domain) in _bad(market)
    )


def _bad(market: FakeMarket) -> set[bytes]:
    return {b.receipt.order_hash for b in market.bundles.values() if b.node_id == 1}


async def test_gateway_that_goes_away_stops_the_work_and_keeps_the_rest(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    seen: list[int] = []

    def tell(now: mapping.Progress) -> None:
        seen.append(now.done)
        market.down = now.done == 2

    statement = await map_all(watt, job, tell=tell)
    assert statement.halted_by is not None
    assert statement.halted_by.code is ErrorCode.NOT_READY
    assert (statement.done, statement.left, statement.failed) == (2, 2, 0)
    market.down = False
    assert (await map_all(watt, job)).done == 4
    assert len(market.orders) == 4


async def test_account_without_money_stops_the_work(
    watt: AsyncWattline, market: FakeMarket, buyer: Signer, tmp_path: Path
) -> None:
    market.chain.accounts[buyer.address] = 0
    statement = await map_all(watt, job_of(tmp_path))
    assert statement.halted_by is not None
    assert statement.halted_by.code is ErrorCode.SESSION_UNDERFUNDED
    assert statement.left + statement.failed == 4


async def test_asked_to_stop_it_finishes_what_is_under_way(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    seen: list[int] = []
    statement = await map_all(
        watt, job, tell=lambda now: seen.append(now.done), stop=lambda: bool(seen and seen[-1] >= 2)
    )
    assert (statement.interrupted, statement.done, statement.left) == (True, 2, 2)
    assert len(lines(job.out)) == 2
    assert (await map_all(watt, job)).done == 4

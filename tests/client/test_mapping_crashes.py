"""A mapped file whose process dies, at every step of a row, and whose orders have no known end."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from marketplace.client import mapping
from marketplace.client.aio import AsyncWattline
from marketplace.client.journal import Journal
from marketplace.client.workbook import Workbook
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.map_jobs import CHAT, ONE, Killed, dies_at, job_of, lines, map_all, paid_by_vouchers


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize(
    ("owner", "method", "after"),
    [
        (Journal, "take_seat", True),
        (Journal, "write_order", True),
        (Workbook, "place", False),
        (Workbook, "place", True),
        (FakeMarket, "order", True),
        (Journal, "name_job", True),
        (Workbook, "deliver", False),
        (Workbook, "deliver", True),
        (Journal, "end_seat", True),
        (Journal, "put_voucher", True),
        (FakeMarket, "voucher", True),
    ],
)
async def test_row_is_paid_once_wherever_the_process_dies(
    market: FakeMarket, buyer: Signer, tmp_path: Path, journal: Path,
    owner: type, method: str, after: bool, at: int,
) -> None:  # fmt: skip
    job = job_of(tmp_path, rows=2)
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, owner, method, at, after=after)
        client = AsyncWattline(market.desk(buyer, Journal(journal)), buyer=buyer)
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - a task group wraps what killed it
            await map_all(client, job)
        assert caught.group_contains(Killed) or caught.type is Killed
    again = AsyncWattline(market.desk(buyer, Journal(journal)), buyer=buyer)
    statement = await map_all(again, job)
    assert (statement.done, statement.failed, statement.left) == (2, 0, 0)
    answered = {b.receipt.order_hash for b in market.bundles.values()}
    assert len(answered) == 2, "no row was done twice"
    # What the dead process never sent ends at its deadline; then one more voucher covers all.
    market.clock.ms += 200_000
    await again.chat("one more", model="tiny-chat", node=1)
    assert paid_by_vouchers(market) == statement.tally.paid_atoms + 12


async def test_open_order_of_a_dead_run_is_the_same_job_when_sent_again(
    market: FakeMarket, buyer: Signer, tmp_path: Path, journal: Path
) -> None:
    job = job_of(tmp_path, rows=1)
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, FakeMarket, "order", 1, after=True)
        client = AsyncWattline(market.desk(buyer, Journal(journal)), buyer=buyer)
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - a task group wraps what killed it
            await map_all(client, job)
        assert caught.group_contains(Killed)
    (order,) = market.orders
    market.clock.ms += 3_600_000
    statement = await map_all(AsyncWattline(market.desk(buyer, Journal(journal)), buyer=buyer), job)
    assert market.orders == [order]
    assert statement.done == 1


async def test_open_order_is_not_bought_elsewhere_while_its_end_is_unknown(
    market: FakeMarket, buyer: Signer, tmp_path: Path
) -> None:
    job = job_of(tmp_path, recipe=dataclasses.replace(CHAT, timeout_seconds=3), rows=1)
    watt = AsyncWattline(market.desk(buyer), buyer=buyer)
    for node in market.nodes.values():
        node.behaviour = "silent"
    first = await map_all(watt, job)
    assert first.halted_by is not None
    assert first.uncertain_atoms == market.orders[0].max_amount_atoms
    second = await map_all(watt, job)
    assert second.halted_by is not None
    assert len(market.orders) == 1
    market.nodes[1].behaviour = "ok"
    assert (await map_all(watt, job)).done == 1
    assert len(market.orders) == 1


async def test_row_that_was_paid_and_whose_answer_is_gone_is_not_bought_again(
    market: FakeMarket, buyer: Signer, tmp_path: Path
) -> None:
    job = job_of(tmp_path, recipe=dataclasses.replace(CHAT, timeout_seconds=3), rows=1)
    watt = AsyncWattline(market.desk(buyer), buyer=buyer)
    market.nodes[1].behaviour = "silent"
    await map_all(watt, job)
    market.nodes[1].behaviour = "ok"
    market.clock.ms += 60_000
    # The next voucher pays what the silent order brought, as it has to.
    await watt.chat("another", model="tiny-chat", node=1)
    market.nodes[1].behaviour = "problem unknown_job"
    for _ in range(2):
        statement = await map_all(watt, job)
        (error,) = lines(tmp_path / "out.errors.jsonl")
        assert (error["code"], error["charged"]) == ("unknown_job", True)
        assert (statement.failed, statement.uncertain_atoms) == (1, 12)
    assert len(market.orders) == 2


async def test_order_kept_for_another_journal_is_refused_with_the_remedy(
    market: FakeMarket, buyer: Signer, tmp_path: Path
) -> None:
    job = job_of(tmp_path, recipe=dataclasses.replace(CHAT, timeout_seconds=3), rows=1)
    market.nodes[1].behaviour = "silent"
    await map_all(AsyncWattline(market.desk(buyer), buyer=buyer), job)
    statement = await map_all(AsyncWattline(market.desk(buyer), buyer=buyer), job)
    (error,) = lines(tmp_path / "out.errors.jsonl")
    assert (statement.failed, error["code"]) == (1, "unknown_session")
    assert "journal" in error["hint"]
    assert len(market.orders) == 1


async def test_two_runs_of_one_job_exclude_each_other(watt: AsyncWattline, tmp_path: Path) -> None:
    job = job_of(tmp_path)
    plan = await mapping.forecast(watt, job)
    with Workbook(job.state), pytest.raises(BadRequest, match="another run"):
        await mapping.run(watt, plan, ONE)

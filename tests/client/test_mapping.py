from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from marketplace.client import mapping
from marketplace.client.aio import AsyncWattline
from marketplace.client.bundle import Bundle
from marketplace.client.journal import Journal
from marketplace.client.mapping import MapJob, Statement
from marketplace.client.problems import GatewayProblem
from marketplace.client.purchases import Terms
from marketplace.client.recipes import Recipe
from marketplace.client.verify import passed, verify_receipt
from marketplace.client.workbook import Workbook
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket

CHAT = Recipe(task="chat", model="tiny-chat", fields={"prompt": "Summarise: {text}", "max_tokens": 16})
ONE = Terms(concurrency=1)


class Killed(BaseException):
    """What stands for kill -9: nothing that is written after it counts."""


def source(tmp_path: Path, rows: int = 4) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", "text": f"text {i}"}) + "\n" for i in range(rows)))
    return path


def job_of(tmp_path: Path, recipe: Recipe = CHAT, rows: int = 4, **options: Any) -> MapJob:
    return MapJob(source=source(tmp_path, rows), out=tmp_path / "out.jsonl", recipe=recipe, **options)


async def map_all(watt: AsyncWattline, job: MapJob, terms: Terms = ONE, **options: Any) -> Statement:
    return await mapping.run(watt, await mapping.forecast(watt, job), terms, **options)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def paid_by_vouchers(market: FakeMarket) -> int:
    newest = {voucher.session_id: voucher.amount_atoms for voucher in market.vouchers}
    return sum(newest.values())


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def watt(market: FakeMarket, buyer: Signer, journal: Path) -> AsyncIterator[AsyncWattline]:
    async with AsyncWattline(market.desk(buyer, Journal(journal)), buyer=buyer) as client:
        yield client


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


# --------------------------------------------------------------------------------------------- crashes

Crash = Callable[[pytest.MonkeyPatch, int], None]


def dies_at(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, at: int, *, after: bool) -> None:
    """The process dies at the so manieth call of a method, before or after it took effect."""
    original, calls = getattr(owner, method), iter(range(1, 1_000))

    def call(self: Any, *args: Any, **options: Any) -> Any:
        here = next(calls) == at
        if here and not after:
            raise Killed
        result = original(self, *args, **options)
        if here:
            raise Killed
        return result

    monkeypatch.setattr(owner, method, call)


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


# ------------------------------------------------------------------------------------------- bad input


async def test_bad_rows_are_named_by_line_before_anything_is_paid(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    long = json.dumps({"text": "x" * 20_000})
    job.source.write_text(
        f'{{"text": "ok"}}\n\nnot json\n{{"other": 1}}\n[1]\n{{"text": 5}}\n"a text"\n{long}\n'
    )
    with pytest.raises(BadRequest) as caught:
        await mapping.forecast(watt, job)
    told = caught.value.detail
    for expected in ("3 of", "line 3: not JSON", "line 4: there is no {text}", "line 5: neither"):
        assert expected.replace("3 of", "rows of") in told
    assert "--skip-bad" in str(caught.value.values["hint"])
    assert market.orders == []
    statement = await map_all(watt, dataclasses.replace(job, skip_bad=True))
    errors = lines(tmp_path / "out.errors.jsonl")
    assert [row["line"] for row in errors] == [3, 4, 5, 8]
    assert "too long" in errors[-1]["message"]
    assert (statement.rows, statement.done, statement.failed) == (7, 3, 4)


async def test_csv_takes_names_from_its_heading(watt: AsyncWattline, tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('\ufeffid,text\na,"two\nlines"\nb,short\nc\n', encoding="utf-8")
    job = MapJob(source=path, out=tmp_path / "out.jsonl", recipe=CHAT)
    with pytest.raises(BadRequest, match="line 5: 1 cells below a heading of 2"):
        await mapping.forecast(watt, job)
    await map_all(watt, dataclasses.replace(job, skip_bad=True))
    assert [row["id"] for row in lines(job.out)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl", b"\n", "no row"),
        ("a.csv", b"a,b\n\xff,1\n", "UTF-8"),
        ("a.csv", b'a\n"open\n', "CSV"),
        ("a.jsonl", b'"\xff"\n', "line 1: not JSON .invalid unicode"),
        ("a.txt", b"\xff\n", "line 1: not text in UTF-8"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON .recursion limit"),
    ],
)
async def test_file_that_cannot_be_read_is_told_as_that(
    watt: AsyncWattline, tmp_path: Path, name: str, data: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(data)
    job = MapJob(source=tmp_path / name, out=tmp_path / "out.jsonl", recipe=CHAT)
    with pytest.raises(BadRequest, match=told):
        await mapping.forecast(watt, job)
    with pytest.raises(BadRequest) as caught:
        await mapping.forecast(watt, dataclasses.replace(job, source=tmp_path / "none.jsonl"))
    assert caught.value.code is ErrorCode.NOT_FOUND


async def test_texts_of_a_plain_file_are_rows(watt: AsyncWattline, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\r\n")
    recipe = Recipe(task="embed", model="tiny-chat", fields={"input": "{text}"})
    await map_all(watt, MapJob(source=tmp_path / "a.txt", out=tmp_path / "o.jsonl", recipe=recipe))
    assert [(row["line"], row["embeddings"]) for row in lines(tmp_path / "o.jsonl")] == [
        (1, [[1.0, 2.0]]),
        (3, [[1.0, 2.0]]),
    ]


async def test_fields_of_any_task_are_filled_from_the_row(watt: AsyncWattline, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "why", "docs": ["a", "b"]}\n')
    recipe = Recipe(task="rerank", model="tiny-chat", fields={"query": "{q}?", "documents": "{docs}"})
    await map_all(watt, MapJob(source=tmp_path / "a.jsonl", out=tmp_path / "o.jsonl", recipe=recipe))
    (row,) = lines(tmp_path / "o.jsonl")
    assert [result["index"] for result in row["results"]] == [1, 0]


@pytest.mark.parametrize("change", ["rows", "options"])
async def test_record_of_another_job_is_refused(watt: AsyncWattline, tmp_path: Path, change: str) -> None:
    job = job_of(tmp_path)
    await map_all(watt, job)
    if change == "rows":
        job.source.write_text('{"text": "other"}\n')
    else:
        job = dataclasses.replace(job, recipe=dataclasses.replace(CHAT, fields={"prompt": "{text}"}))
    with pytest.raises(BadRequest, match=f"other {change}"):
        await mapping.forecast(watt, job)


async def test_foreign_file_in_the_place_of_the_record_is_refused(
    watt: AsyncWattline, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    job.state.write_text("no database, but long enough to be looked at as one" * 30)
    with pytest.raises(BadRequest, match="no record of earlier work"):
        await mapping.forecast(watt, job)


async def test_work_goes_on_with_the_files_the_model_had_when_it_began(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    seen: list[int] = []
    await map_all(watt, job, tell=lambda now: seen.append(now.done), stop=lambda: bool(seen))
    market.names.discard("tiny-chat")
    assert (await map_all(watt, job)).done == 4


async def test_no_node_at_all_is_said_before_anything_else(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    market.nodes.clear()
    with pytest.raises(GatewayProblem) as caught:
        await mapping.forecast(watt, job_of(tmp_path))
    assert caught.value.code is ErrorCode.NO_NODE

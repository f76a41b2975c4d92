"""Short texts to embed, many in one job: each row has its own result, and is paid once whatever happens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from marketplace.client import mapping
from marketplace.client.aio import AsyncWattline
from marketplace.client.bundle import Bundle
from marketplace.client.journal import Journal
from marketplace.client.mapping import MapJob
from marketplace.client.packs import AskedRow, packed
from marketplace.client.purchases import Terms
from marketplace.client.recipes import Recipe, digest_of
from marketplace.client.rows import Row
from marketplace.client.verify import failures, verify_receipt
from marketplace.client.workbook import Name, Workbook
from marketplace.protocol.payloads import parse_payload
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.map_jobs import ONE, Killed, dies_at, lines, map_all

EMBED = Recipe(task="embed", model="tiny-chat", fields={"input": "{text}"})


def asked_of(*texts: str, recipe: Recipe = EMBED) -> list[AskedRow]:
    rows = [Row(number=i, line=i, values={"text": text}) for i, text in enumerate(texts, 1)]
    asks = [recipe.ask(row.values) for row in rows]
    return [
        AskedRow(row=row, ask=ask, name=Name(str(row.number), digest_of(ask)))
        for row, ask in zip(rows, asks, strict=True)
    ]


def units(asked: list[AskedRow], known: tuple[Name, ...] = ()) -> list[str]:
    return [pack.name.unit for pack in packed(asked, known)]


def job_of(tmp_path: Path, texts: list[str], **changes: Any) -> MapJob:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"id": f"r{i}", "text": text}) + "\n" for i, text in enumerate(texts)))
    return MapJob(source=path, out=tmp_path / "out.jsonl", recipe=EMBED, **changes)


def inputs(market: FakeMarket) -> list[int]:
    """How many texts each job had."""
    payloads: list[Any] = [parse_payload(bundle.payload) for bundle in market.bundles.values()]
    return [len(payload.input) for payload in payloads]


def test_short_texts_share_a_job_up_to_a_bound_of_rows_and_bytes() -> None:
    assert units(asked_of(*["a"] * 130)) == ["1-64", "65-128", "129-130"]
    assert units(asked_of(*["x" * 1_500] * 12)) == ["1-10", "11-12"]


def test_long_and_blank_texts_stand_alone_and_the_others_close_up() -> None:
    assert units(asked_of("a", "x" * 4_000, "b", " ", "c")) == ["1,3,5", "2", "4"]


def test_other_tasks_have_a_job_a_row() -> None:
    classify = Recipe(task="classify", model="m", fields={"input": "{text}", "labels": ["a", "b"]})
    assert units(asked_of("a", "b", recipe=classify)) == ["1", "2"]


def test_jobs_that_were_ordered_stay_as_they_were_and_the_rest_is_packed_anew() -> None:
    before = asked_of(*"abcdef")
    (first,) = packed([before[1], before[2], before[4]], ())
    assert first.name.unit == "2-3,5"
    alone = before[5].name
    assert units(before, (first.name, alone)) == ["1,4", "2-3,5", "6"]
    # Other texts in these rows are another question, and a row that is gone is no part of any.
    assert units(asked_of(*"abxdef"), (first.name,)) == ["1-6"]
    assert units(before[:4], (first.name,)) == ["1-4"]


@pytest.mark.parametrize(("atoms", "shares"), [(7, [3, 2, 2]), (0, [0, 0, 0]), (9, [3, 3, 3])])
def test_shares_of_a_jobs_cost_sum_to_it(atoms: int, shares: list[int]) -> None:
    (pack,) = packed(asked_of(*"abc"), ())
    assert pack.shares(atoms) == shares


async def test_each_row_has_its_vector_and_its_share_of_one_receipt(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path, ["a", "x" * 4_000, "b", "c"])
    plan = await mapping.forecast(watt, job)
    assert plan.left == 4
    statement = await mapping.run(watt, plan, Terms(concurrency=2))
    assert (statement.rows, statement.done, statement.tally.jobs) == (4, 4, 2)
    assert sorted(inputs(market)) == [1, 3]
    found = lines(job.out)
    assert [(row["row"], row["id"], row["embeddings"]) for row in found] == [
        (i + 1, f"r{i}", [[1.0, 2.0]]) for i in range(4)
    ]
    assert [row.get("rows_in_job") for row in found] == [3, None, 3, 3]
    assert len({row["receipt_id"] for row in found}) == 2
    assert sum(int(row["cost_atoms"]) for row in found) == statement.tally.paid_atoms
    assert sum(order.max_amount_atoms for order in market.orders) <= plan.most_atoms
    for bundle in lines(tmp_path / "out.receipts.jsonl"):
        assert failures(verify_receipt(bundle)) == []


async def test_rows_that_took_turns_come_out_in_the_order_of_the_file(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    texts = [text for i in range(70) for text in (f"{i}", "x" * 3_000 if i % 7 == 0 else f"b{i}")]
    await map_all(watt, job_of(tmp_path, texts), Terms(concurrency=4))
    assert [row["row"] for row in lines(tmp_path / "out.jsonl")] == list(range(1, 141))


async def test_same_job_again_pays_nothing_also_when_rows_are_left_out(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path, [*"abcdefgh"])
    first = await map_all(watt, job, ONE)
    second = await map_all(watt, job, ONE)
    assert (second.tally, second.done, len(market.orders)) == (first.tally, 8, 1)


async def test_failed_job_names_all_its_rows_uncharged_and_they_are_done_later(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    for node in market.nodes.values():
        node.behaviour = "fail"
    job = job_of(tmp_path, [*"abc"])
    failed = await map_all(watt, job, ONE)
    assert (failed.done, failed.failed, failed.left) == (0, 3, 0)
    errors = lines(tmp_path / "out.errors.jsonl")
    assert [(row["row"], row["code"], row["charged"]) for row in errors] == [
        (number, "node_failed", False) for number in (1, 2, 3)
    ]
    for node in market.nodes.values():
        node.behaviour = "ok"
    assert (await map_all(watt, job, ONE)).done == 3
    assert not (tmp_path / "out.errors.jsonl").exists()


@pytest.mark.parametrize(
    ("owner", "method", "after"),
    [
        (Workbook, "place", False),
        (Workbook, "place", True),
        (FakeMarket, "order", True),
        (Workbook, "deliver", False),
        (Workbook, "deliver", True),
        (FakeMarket, "voucher", True),
    ],
)
@pytest.mark.parametrize("at", [1, 2])
async def test_rows_of_one_job_are_paid_once_wherever_the_process_dies(
    market: FakeMarket, buyer: Signer, tmp_path: Path, owner: type, method: str, after: bool, at: int
) -> None:
    journal, job = tmp_path / "journal.db", job_of(tmp_path, [f"text {i}" for i in range(100)])
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, owner, method, at, after=after)
        client = AsyncWattline(market.desk(buyer, Journal(journal)), buyer=buyer)
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - a task group wraps what killed it
            await map_all(client, job)
        assert caught.group_contains(Killed) or caught.type is Killed
    again = AsyncWattline(market.desk(buyer, Journal(journal)), buyer=buyer)
    statement = await map_all(again, job)
    assert (statement.done, statement.failed, statement.left) == (100, 0, 0)
    assert sorted(inputs(market)) == [36, 64], "no row was done twice"
    assert [row["row"] for row in lines(job.out)] == list(range(1, 101))


async def test_record_of_rows_bought_one_by_one_is_gone_on_with(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    job = job_of(tmp_path, [*"abc"])
    plan = await mapping.forecast(watt, job)
    (pack,) = plan.packs
    alone = dataclasses.replace(plan, packs=packed(plan.asked[:1], ()), asked=plan.asked[:1])
    await mapping.run(watt, alone, ONE)
    statement = await map_all(watt, job, ONE)
    assert (statement.done, inputs(market)) == (3, [1, 2])
    assert pack.name.unit == "1-3"
    first = Bundle.from_json(lines(tmp_path / "out.receipts.jsonl")[0])
    assert first.receipt.amount_atoms == int(lines(job.out)[0]["cost_atoms"])

"""Rows of a mapped file: what they may be, and what is said of those that cannot be asked."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from marketplace.client import mapping
from marketplace.client.aio import AsyncWattline
from marketplace.client.mapping import MapJob
from marketplace.client.problems import GatewayProblem
from marketplace.client.recipes import Recipe
from marketplace.protocol.errors import BadRequest, ErrorCode
from tests.client.fake_market import FakeMarket
from tests.client.map_jobs import CHAT, job_of, lines, map_all


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


async def test_model_that_is_not_offered_for_the_task_is_said_to_be_that(
    watt: AsyncWattline, market: FakeMarket, tmp_path: Path
) -> None:
    original = market.quotes
    market.quotes = lambda body: {  # type: ignore[method-assign]
        "quotes": [row | {"eligible": False, "why_not": "unsupported"} for row in original(body)["quotes"]]
    }
    with pytest.raises(BadRequest, match="tiny-chat is not offered for chat") as caught:
        await mapping.forecast(watt, job_of(tmp_path))
    assert caught.value.code is ErrorCode.UNSUPPORTED

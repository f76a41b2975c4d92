from __future__ import annotations

import base64
from pathlib import Path

from tests.cli.conftest import Watt
from tests.cli.test_commands import PAID
from tests.client.fake_market import FakeMarket

CLASSIFY = ("task", "classify", "input=I loved it", "labels=bad", "labels=good", "--model", "tiny-chat")


def test_task_prints_a_line_an_input_and_the_price_to_stderr(watt: Watt, market: FakeMarket) -> None:
    ran = watt(*CLASSIFY)
    assert (ran.code, ran.out) == (0, "index=0 label=good near_tie=false scores=good:100000,bad:0\n")
    assert "✓ verified" in ran.err


def test_task_json_is_one_object(watt: Watt, market: FakeMarket) -> None:
    found = watt(*CLASSIFY, "--json").json
    assert set(found) == PAID | {"results"}
    assert found["verified"] is True


def test_list_is_read_off_a_file_a_line_an_item(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    (tmp_path / "docs.txt").write_text("first\n\nsecond\nthird\n")
    ran = watt("task", "rerank", "query=q", f"documents=@{tmp_path / 'docs.txt'}", "--model", "tiny-chat")
    assert [line.split()[0] for line in ran.out.splitlines()] == ["index=2", "index=1", "index=0"]


def test_file_that_is_no_text_goes_whole(watt: Watt, market: FakeMarket, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\xff\xfe")
    asked = ("classify-image", f"images=@{tmp_path / 'cat.png'}", "top=3")
    watt("task", *asked, "--quote", "--model", "tiny-chat")
    body = next(body for _, path, body in market.calls if path == "/v1/quotes")
    image = base64.b64encode(b"\x89PNG\r\n\xff\xfe").decode()
    assert (body["task"], body["body"]) == ("classify-image", {"images": [image], "top": 3})


def test_quote_of_a_task_charges_nothing(watt: Watt, market: FakeMarket) -> None:
    ran = watt(*CLASSIFY, "--quote")
    assert ran.code == 0
    assert "nothing charged" in ran.err
    assert market.orders == []
    assert {quote["node_id"] for quote in watt(*CLASSIFY, "--quote", "--json").json["quotes"]} == {1, 2}


def test_field_that_is_none_names_those_there_are(watt: Watt, market: FakeMarket) -> None:
    ran = watt("task", "classify", "text=hello", "--model", "tiny-chat")
    assert ran.code == 2
    assert "input, labels, question" in ran.err
    assert market.calls == []


def test_task_that_is_none_names_those_there_are(watt: Watt, market: FakeMarket) -> None:
    ran = watt("task", "sing", "song=la", "--model", "tiny-chat")
    assert ran.code != 0
    assert "classify-image" in ran.err


def test_model_is_the_first_on_offer_for_the_task(watt: Watt, market: FakeMarket) -> None:
    ran = watt("task", "rerank", "query=q", "documents=d")
    assert ran.code == 3 or "No model for rerank" in ran.err
    assert market.orders == []

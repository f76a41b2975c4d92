from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from marketplace.cli import progress, screen
from tests.cli.conftest import BUYER, Watt
from tests.client.fake_market import FakeMarket

STATEMENT = {
    "rows",
    "done",
    "failed",
    "left",
    "paid",
    "currency",
    "jobs",
    "paid_atoms",
    "refunded_atoms",
    "units_in",
    "units_out",
    "energy_millijoules",
    "nodes",
    "uncertain_atoms",
    "out",
    "receipts",
    "errors",
    "ended",
    "problem",
}


class Terminal(io.StringIO):
    """A keyboard with somebody at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}"}) + "\n" for i in range(3)))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_map_writes_results_receipts_and_one_statement(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    ran = watt("map", data, "--prompt", "Sum up: {text}", "--max-cost", "0.5", "--json")
    assert ran.code == 0
    found = ran.json
    assert set(found) == STATEMENT
    assert (found["rows"], found["done"], found["ended"], found["problem"]) == (3, 3, "complete", None)
    assert [row["text"] for row in lines(tmp_path / "data.out.jsonl")] == ["Hello, world"] * 3
    verified = watt("receipt", "verify", found["receipts"], "--json").json
    assert (verified["verified"], verified["count"]) == (True, 3)
    assert verified["paid_atoms"] == found["paid_atoms"]
    body = next(body for _, path, body in market.calls if path == "/v1/quotes" and body["task"] == "chat")
    assert body["messages"] == [{"role": "user", "content": "Sum up: text 0"}]


def test_map_says_the_price_before_and_the_sum_after(watt: Watt, market: FakeMarket, data: Path) -> None:
    ran = watt("map", data, "--concurrency", "1")
    assert ran.code == 0
    assert "3 rows · at most" in ran.err
    assert "at the cheapest node" in ran.err
    assert "3 of 3 done" in ran.out
    assert "0.000036 TUSD" in ran.out
    assert "1 (3 jobs)" in ran.out
    assert "data.receipts.jsonl" in ran.out


def test_dry_run_prices_and_buys_nothing(watt: Watt, market: FakeMarket, data: Path, tmp_path: Path) -> None:
    found = watt("map", data, "--dry-run", "--json").json["forecast"]
    assert (found["left"], found["nodes"], found["bad_rows"]) == (3, [1, 2], [])
    assert int(found["most_atoms"]) > int(found["least_atoms"]) > 0
    assert "3 rows · at most" in watt("map", data, "--dry-run").out
    assert market.orders == []
    assert [path.name for path in tmp_path.glob("data.*")] == ["data.jsonl"]


def test_much_money_is_asked_for_first(
    watt: Watt, market: FakeMarket, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dear = ("map", data, "--ask-above", "0.000001")
    refused = watt(*dear)
    assert (refused.code, "--yes" in refused.err) == (1, True)
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert watt(*dear).code == 1
    assert market.orders == []
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert watt(*dear).code == 0
    assert len(market.orders) == 3


def test_a_cap_is_consent_where_nobody_can_be_asked(watt: Watt, market: FakeMarket, data: Path) -> None:
    assert watt("map", data, "--ask-above", "0", "--max-cost", "0.5").code == 0
    assert watt("map", data, "--ask-above", "0", "--yes").code == 0


def test_cap_ends_with_4_and_says_how_to_go_on(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    ask = ("map", data, "--max-tokens", "16", "--concurrency", "1")
    ran = watt(*ask, "--max-cost", "0.00006")
    assert ran.code == 4
    assert "The cap is 0.00006 TUSD" in ran.err
    enough = ran.err.split("higher cap; ")[1].split()[0]
    done = len(lines(tmp_path / "data.out.jsonl"))
    assert 0 < done < 3
    told = watt(*ask, "--max-cost", "0.00006", "--json")
    assert (told.code, told.json["ended"], told.json["problem"]["code"]) == (4, "cap", "price_above_max")
    assert watt(*ask, "--max-cost", enough).code == 0
    assert len(market.orders) == 3


def test_failed_rows_end_with_1_and_are_listed(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    for node in market.nodes.values():
        node.behaviour = "problem input_too_long"
    ran = watt("map", data, "--json")
    assert (ran.code, ran.json["failed"], ran.json["receipts"]) == (1, 3, None)
    assert {row["code"] for row in lines(Path(ran.json["errors"]))} == {"input_too_long"}


def test_bad_rows_end_with_1_and_skip_bad_goes_on(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    with data.open("a") as file:
        file.write("nonsense\n")
    ran = watt("map", data)
    assert (ran.code, "line 4: not JSON" in ran.err, "--skip-bad" in ran.err) == (1, True, True)
    assert market.orders == []
    ran = watt("map", data, "--skip-bad", "--json")
    assert (ran.code, ran.json["done"], ran.json["failed"]) == (1, 3, 1)


def test_money_and_network_troubles_have_their_exit_codes(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    market.chain.accounts[BUYER.address] = 0
    ran = watt("map", data, "--json")
    assert (ran.code, ran.json["ended"]) == (4, "session_underfunded")
    market.down = True
    assert watt("map", data).code == 5
    assert watt("map", tmp_path / "none.jsonl").code in (3, 5)


def test_receipts_that_do_not_hold_are_kept_for_a_proof(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    market.nodes[1].behaviour = "overcharge"
    ran = watt("map", data, "--concurrency", "1")
    assert ran.code == 0
    assert "watt dispute proof" in ran.err
    assert "not certain" in ran.out
    assert len(list((tmp_path / ".watt" / "faults").iterdir())) == 3


def test_task_fields_take_templates_and_lists(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    ask = ("map", data, "--task", "classify", "--model", "tiny-chat")
    ran = watt(
        *ask,
        "--field",
        "labels=bad",
        "--field",
        "labels=good",
        "--field",
        "question=Mood",
        "--out",
        "m.jsonl",
    )
    assert ran.code == 0, ran.err
    assert {row["results"][0]["label"] for row in lines(tmp_path / "m.jsonl")} == {"good"}
    # The job's own model is the one it goes on with.
    again = ("map", data, "--task", "classify", "--field", "labels=bad", "--field", "labels=good")
    assert watt(*again, "--field", "question=Mood", "--out", "m.jsonl").code == 0
    assert len(market.orders) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        ("--field", "labels"),
        ("--max-cost", "much"),
        ("--nodes", "one"),
        ("--out", "data.jsonl"),
        ("--concurrency", "0"),
    ],
)
def test_wrong_usage_ends_with_2(watt: Watt, market: FakeMarket, data: Path, wrong: tuple[str, str]) -> None:
    assert watt("map", data, *wrong).code == 2
    assert market.orders == []


def test_unknown_fields_and_tasks_are_named(watt: Watt, market: FakeMarket, data: Path) -> None:
    ran = watt("map", data, "--field", "sing=loud")
    assert (ran.code, "chat has no field 'sing'" in ran.err) == (1, True)
    assert watt("map", data, "--task", "sing", "--model", "tiny-chat").code == 1


def test_first_interrupt_finishes_what_is_under_way_and_ends_with_130(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    original = market.order

    def order(request: Any, body: Any) -> Any:
        if not market.orders:
            os.kill(os.getpid(), signal.SIGINT)
        return original(request, body)

    market.order = order  # type: ignore[method-assign]
    ran = watt("map", data, "--concurrency", "1", "--json")
    assert (ran.code, ran.json["ended"]) == (130, "interrupted")
    assert ran.json["done"] + ran.json["left"] == 3
    assert ran.json["left"] > 0
    assert "What was bought is kept" in ran.err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert watt("map", data, "--json").json["done"] == 3
    assert len(market.orders) == 3


def test_second_interrupt_ends_at_once() -> None:
    with progress.gently_stopped("the rows") as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_progress_is_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr("sys.stderr", shown)
    meter = progress.Meter("rows", 10, 0, screen.Currency())
    meter.tell(5, 1, 1_200)
    meter.close()
    assert "5/10 rows · 0.0012 TUSD" in shown.getvalue()
    assert "1 failed" in shown.getvalue()
    assert shown.getvalue().count("\n") == 1


# --------------------------------------------------------------------------------- many receipts at once


def test_bundle_that_does_not_hold_is_named_by_its_line(
    watt: Watt, market: FakeMarket, data: Path, tmp_path: Path
) -> None:
    watt("map", data, "--concurrency", "1")
    path = tmp_path / "data.receipts.jsonl"
    first, second, third = lines(path)
    second["chunks"] = second["chunks"][::-1]
    path.write_text("".join(json.dumps(row) + "\n" for row in (first, second, third, first)))
    ran = watt("receipt", "verify", path)
    assert ran.code == 1
    assert "✗ line 2" in ran.out
    assert "response hash" in ran.out
    assert "✗ line 4  once: the same receipt as in line 1" in ran.out
    assert "2 of 4 verified, 24 atoms paid" in ran.out
    found = watt("receipt", "verify", path, "--json").json
    assert [row["verified"] for row in found["receipts"]] == [True, False, True, False]
    chained = watt("receipt", "verify", path, "--chain", "--json").json
    assert (chained["count"], chained["failed"]) == (4, 2)


def test_file_of_receipts_must_have_some(watt: Watt, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text("\n")
    assert watt("receipt", "verify", tmp_path / "r.jsonl").code == 1
    (tmp_path / "r.jsonl").write_text("{}\nnonsense\n")
    ran = watt("receipt", "verify", tmp_path / "r.jsonl")
    assert (ran.code, "line 2" in ran.err) == (1, True)

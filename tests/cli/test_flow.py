from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Watt
from tests.client.fake_market import FakeMarket
from tests.house.tree import ROOT

EXAMPLE = ROOT / "examples" / "summarise.toml"


@pytest.fixture
def flow(market: FakeMarket, tmp_path: Path) -> Path:
    """The example, at a market that calls its one model by both names."""
    market.names |= {"all-minilm-l6-v2", "smollm2-135m-instruct"}
    (tmp_path / "texts.txt").write_text("It broke.\n\nI love it.\n")
    path = tmp_path / "summarise.toml"
    path.write_text(EXAMPLE.read_text())
    return path


def test_example_runs_as_the_guide_says(watt: Watt, market: FakeMarket, flow: Path, tmp_path: Path) -> None:
    ran = watt("flow", "run", flow, "--input", "texts=@texts.txt", "--cap", "0.10", "--json")
    assert ran.code == 0, ran.err
    found = ran.json
    assert {row["id"]: (row["state"], row["done"]) for row in found["steps"]} == {
        "embed": ("done", 1),
        "classify": ("done", 2),
        "summarise": ("done", 2),
    }
    assert sum(int(row["paid_atoms"]) for row in found["steps"]) == int(found["paid_atoms"])
    outputs = json.loads((tmp_path / "summarise.out.json").read_text())["outputs"]
    assert outputs["summarise"]["text"] == ["Hello, world"] * 2
    verified = watt("receipt", "verify", tmp_path / "summarise.receipts.jsonl", "--json")
    assert (verified.code, verified.json["paid_atoms"]) == (0, found["paid_atoms"])


def test_run_shows_steps_sums_and_files(watt: Watt, market: FakeMarket, flow: Path) -> None:
    ran = watt("flow", "run", flow, "--input", "texts=one", "--input", "texts=two")
    assert ran.code == 0
    assert "3 steps · about 5 jobs · up to about" in ran.err
    assert "summarise\tdone\t2/2" in ran.out
    assert "summarise.out.json" in ran.out


def test_dry_run_prices_each_step_and_buys_nothing(watt: Watt, market: FakeMarket, flow: Path) -> None:
    ask = ("flow", "run", flow, "--input", "texts=@texts.txt", "--dry-run")
    found = watt(*ask, "--json").json["forecast"]
    assert [row["jobs"] for row in found["steps"]] == [1, 2, 2]
    assert sum(int(row["most_atoms"]) for row in found["steps"]) == int(found["most_atoms"])
    assert "nothing charged" in watt(*ask).err
    assert market.orders == []


def test_finished_run_is_not_bought_again_by_accident(watt: Watt, market: FakeMarket, flow: Path) -> None:
    ask = ("flow", "run", flow, "--input", "texts=@texts.txt")
    assert watt(*ask).code == 0
    refused = watt(*ask)
    assert (refused.code, "--resume" in refused.err) == (1, True)
    resumed = watt(*ask, "--resume", "--json")
    assert (resumed.code, len(market.orders)) == (0, 5)


def test_cap_of_the_whole_ends_with_4_and_resume_goes_on(watt: Watt, market: FakeMarket, flow: Path) -> None:
    ask = ("flow", "run", flow, "--input", "texts=@texts.txt")
    ran = watt(*ask, "--cap", "0.00009", "--json")
    assert (ran.code, ran.json["ended"]) == (4, "cap")
    assert int(ran.json["paid_atoms"]) <= 90
    assert watt(*ask, "--resume", "--cap", "0.10").code == 0
    assert len(market.orders) == 5


def test_failed_step_ends_with_1_and_says_why(watt: Watt, market: FakeMarket, flow: Path) -> None:
    for node in market.nodes.values():
        node.behaviour = "problem input_too_long"
    ran = watt("flow", "run", flow, "--input", "texts=x")
    assert ran.code == 1
    assert "input_too_long" in ran.err
    assert "summarise\tleft" in ran.out


def test_check_needs_no_market_and_finds_all(watt: Watt, tmp_path: Path) -> None:
    assert watt("flow", "check", EXAMPLE, "--json").json == {
        "ok": True,
        "errors": [],
        "steps": ["embed", "classify", "summarise"],
    }
    assert "✓ 3 steps" in watt("flow", "check", EXAMPLE).out
    bad = tmp_path / "bad.toml"
    bad.write_text(EXAMPLE.read_text().replace("{classify.items}", "{nobody.items}"))
    ran = watt("flow", "check", bad)
    assert (ran.code, "✗ step summarise: for_each names {nobody.items}" in ran.out) == (1, True)
    found = watt("flow", "check", bad, "--json")
    assert (found.code, found.json["ok"], len(found.json["errors"])) == (1, False, 1)
    assert watt("flow", "check", tmp_path / "none.toml").code == 3
    assert watt("flow", "run", bad, "--input", "texts=x").code == 1


def test_show_tells_order_needs_and_what_was_bought(watt: Watt, market: FakeMarket, flow: Path) -> None:
    before = watt("flow", "show", flow, "--json").json
    assert [(row["id"], row["needs"], row["bought"]) for row in before["steps"]] == [
        ("embed", [], 0),
        ("classify", [], 0),
        ("summarise", ["classify"], 0),
    ]
    watt("flow", "run", flow, "--input", "texts=@texts.txt")
    assert [row["bought"] for row in watt("flow", "show", flow, "--json").json["steps"]] == [1, 2, 2]
    assert "summarise\tchat\tsmollm2-135m-instruct\tclassify\tyes\t2" in watt("flow", "show", flow).out


def test_inputs_that_do_not_fit_are_refused(watt: Watt, market: FakeMarket, flow: Path) -> None:
    assert watt("flow", "run", flow).code == 1
    assert watt("flow", "run", flow, "--input", "texts").code == 2
    assert watt("flow", "run", flow, "--input", "other=x").code == 1
    assert watt("flow", "run", flow, "--input", "texts=@none.txt").code == 3
    assert market.orders == []

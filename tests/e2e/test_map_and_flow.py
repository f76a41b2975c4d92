"""A file mapped over the nodes, killed on the way and gone on with; a flow from texts to summaries."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.checker import balance_of_receipts, check, fold
from tests.e2e.market import MarketUnderTest, wait_until
from tests.e2e.test_command_line import Terminal
from tests.house.tree import ROOT

ROWS, BEFORE_THE_KILL = 12, 4


@pytest.fixture(scope="module")
def watt(market: MarketUnderTest) -> Terminal:
    return Terminal(market.data_dir)


def receipted(market: MarketUnderTest) -> list[int]:
    """Amounts of all receipts that the buyer's journal has accepted."""
    path = market.data_dir / "client.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as journal:
        rows = journal.execute("SELECT amount_atoms FROM seat WHERE state = 'receipted'").fetchall()
    return [int(row[0]) for row in rows]


def test_mapped_file_that_is_killed_goes_on_and_pays_each_row_once(
    market: MarketUnderTest, watt: Terminal, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"id": n, "text": f"Count to {n}."}) + "\n" for n in range(ROWS)))
    ask = ("map", str(data), "--max-tokens", "12", "--concurrency", "3", "--max-cost", "0.05", "--yes")
    before = len(receipted(market))
    first = watt.start(*ask)
    wait_until(
        lambda: len(receipted(market)) >= before + BEFORE_THE_KILL or first.poll() is not None,
        120,
        "rows",
        0.05,
    )
    first.kill()
    first.wait()
    assert first.returncode == -9
    done = watt.json(*ask)
    assert (done["rows"], done["done"], done["ended"]) == (ROWS, ROWS, "complete")
    assert [json.loads(line)["id"] for line in Path(done["out"]).read_text().splitlines()] == list(
        range(ROWS)
    )
    amounts = [amount for amount in receipted(market)[before:] if amount]
    verified = watt.json("receipt", "verify", done["receipts"], "--chain")
    assert (verified["verified"], verified["count"]) == (True, ROWS)
    assert len(amounts) == ROWS
    assert sum(amounts) == int(verified["paid_atoms"]) == int(done["paid_atoms"])
    assert len(done["nodes"]) == 2, "both nodes that chat had their part"
    again = watt.json(*ask)
    assert (again["paid_atoms"], len(receipted(market))) == (done["paid_atoms"], before + ROWS)


def test_flow_of_the_guide_runs_over_all_nodes_under_one_cap(
    market: MarketUnderTest, watt: Terminal, tmp_path: Path
) -> None:
    (tmp_path / "texts.txt").write_text(
        "The parcel never came and nobody answers.\nLovely shop, thank you!\n"
    )
    flow = str(ROOT / "examples" / "summarise.toml")
    ask = ("flow", "run", flow, "--input", f"texts=@{tmp_path / 'texts.txt'}", "--cap", "0.10")
    done = watt.json(*ask, "--out", str(tmp_path / "summarise.out.json"))
    assert {step["id"]: (step["state"], step["jobs"]) for step in done["steps"]} == {
        "embed": ("done", 1),
        "classify": ("done", 2),
        "summarise": ("done", 2),
    }
    outputs = json.loads((tmp_path / "summarise.out.json").read_text())["outputs"]
    assert len(outputs["embed"]["vectors"][0]) == 384
    assert len(outputs["classify"]["text"]) == 2
    assert all(outputs["summarise"]["text"])
    verified = watt.json("receipt", "verify", done["receipts"], "--chain")
    assert (verified["verified"], verified["paid_atoms"]) == (True, done["paid_atoms"])
    for node in market.market.nodes:
        watt.json("node", "settle", "--data-dir", node.data_dir)
    found = market.evidence()
    assert sum(fold(found).paid.values()) == balance_of_receipts(found)
    assert check(found) == []

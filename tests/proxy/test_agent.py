"""The agent of `examples`: plans inside its budget, buys from two nodes, verifies, accounts to the atom."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.client.aio import AsyncWattline
from marketplace.client.journal import Journal
from marketplace.client.sync import Wattline
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.fakes import Clock, FakeNode
from tests.house.tree import ROOT

PATH = ROOT / "examples" / "agent.py"
EXAMPLE = runpy.run_path(str(PATH))
# Two nodes, three steps, each billed 5 units in and 2 out.
SPENT = 3 * (12 + 22)


@pytest.fixture
def watt(market: FakeMarket, buyer: Signer, tmp_path: Path) -> Iterator[Wattline]:
    async def make() -> AsyncWattline:
        return AsyncWattline(market.desk(buyer, Journal(tmp_path / "agent.db")), buyer=buyer)

    with Wattline(make) as client:
        yield client


def run(watt: Wattline, budget: str = "0.01") -> dict[str, Any]:
    report: dict[str, Any] = EXAMPLE["Agent"](watt, "a talk about escrow", budget).run()
    return report


def paid(market: FakeMarket) -> int:
    newest = {voucher.session_id: voucher.amount_atoms for voucher in market.vouchers}
    return sum(newest.values())


def test_agent_buys_each_step_from_two_nodes_and_accounts_to_the_atom(
    watt: Wattline, market: FakeMarket, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(watt)
    assert [step["step"] for step in report["steps"]] == ["points", "draft", "title"]
    assert {step["agreed"] for step in report["steps"]} == {True}
    assert report["nodes"] == [1, 2]
    assert all(row["verified"] for step in report["steps"] for row in step["bought"])
    assert (report["spent_atoms"], report["left_atoms"], report["books_agree"]) == (
        SPENT,
        10_000 - SPENT,
        True,
    )
    assert paid(market) == SPENT
    EXAMPLE["show"](report, "TUSD")
    assert f"spent 0.000102 TUSD = {SPENT} atoms" in capsys.readouterr().out


def test_answers_of_one_step_are_in_the_questions_of_the_next(watt: Wattline, market: FakeMarket) -> None:
    run(watt)
    questions = [body["messages"][0]["content"] for _, path, body in market.calls if path == "/v1/quotes"]
    assert any("Use: Hello, world" in question for question in questions)


def test_agent_that_starts_again_pays_for_nothing_twice(watt: Wattline, market: FakeMarket) -> None:
    first, second = run(watt), run(watt)
    assert second == first
    assert (len(market.orders), paid(market)) == (6, SPENT)


def test_agent_shortens_its_answers_to_fit_its_budget(watt: Wattline, market: FakeMarket) -> None:
    report = run(watt, "0.000330")
    assert report["steps"][0]["max_tokens"] < 48
    assert sum(order.max_amount_atoms for order in market.orders[:2]) <= 110
    assert report["books_agree"]


def test_agent_buys_one_opinion_where_two_are_too_dear(watt: Wattline) -> None:
    first = run(watt, "0.000180")["steps"][0]
    assert (first["agreed"], first["max_tokens"], len(first["bought"])) == (None, 8, 1)


def test_agent_without_money_buys_nothing_and_says_so(watt: Wattline, market: FakeMarket) -> None:
    report = run(watt, "0.000010")
    assert report["steps"] == [{"step": "points", "skipped": "no node does it for what is left"}]
    assert (report["spent_atoms"], market.orders) == (0, [])


def test_agent_says_when_nodes_differ(watt: Wattline, market: FakeMarket) -> None:
    market.nodes[2].behaviour = "own words"
    report = run(watt)
    assert {step["agreed"] for step in report["steps"]} == {False}


def test_agent_finds_its_market_and_its_grant(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], buyer: Signer
) -> None:
    market = FakeMarket([FakeNode(1, price_per_job=10), FakeNode(2, price_per_job=20)], Clock())
    market.chain.accounts[buyer.address] = 5_000_000
    key = tmp_path / "agent.key"
    key.write_text(to_hex(buyer.secret))
    key.chmod(0o600)
    named = {"gateway_url": "http://g", "rpc_url": "http://r", "deployment": "d.json"}
    (tmp_path / "market.json").write_text(json.dumps(named))
    opened: dict[str, Any] = {}

    async def make(**options: Any) -> AsyncWattline:
        opened.update(options)
        return AsyncWattline(market.desk(buyer), buyer=buyer)

    monkeypatch.setattr(AsyncWattline, "open", make)
    words = ["agent.py", "a goal", "--key", str(key), "--market", str(tmp_path / "market.json")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PATH), run_name="__main__")
    assert ended.value.code == 0
    assert "atoms left" in capsys.readouterr().out
    assert (opened["key"].address, opened["grant"]) == (buyer.address, None)
    assert opened["journal_path"] == tmp_path / "agent.journal.db"


def test_agent_is_short_and_speaks_to_the_sdk_alone() -> None:
    text = PATH.read_text()
    assert len(text.splitlines()) <= 200
    assert "marketplace.api" not in text

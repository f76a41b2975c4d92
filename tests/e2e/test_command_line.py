"""The commands of the guide, as a person types them, against a running market."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.market import MarketUnderTest

QUESTION = "What is the capital of France? Answer in one sentence."


class Terminal:
    """A shell that knows where the market is and nothing else."""

    def __init__(self, home: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("WATT")}
        self._environment = kept | {"WATT_HOME": str(home), "NO_COLOR": "1"}

    def run(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("watt")), *words]
        done = subprocess.run(
            command, env=self._environment, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The same, still running."""
        command = [str(Path(sys.executable).with_name("watt")), *words]
        return subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True
        )

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code).stdout)


@pytest.fixture(scope="module")
def watt(market: MarketUnderTest) -> Terminal:
    return Terminal(market.data_dir)


def test_quote_shows_prices_and_charges_nothing(watt: Terminal) -> None:
    assert "node" in watt.run("quote", QUESTION, "--max-tokens", "16").stdout.lower()
    found = watt.json("quote", QUESTION, "--max-tokens", "16")
    quotes = found["quotes"]
    assert found["input_units"]["exact"], "the node has a tokenizer and counts by it"
    assert len(quotes) == 2
    assert all(int(quote["ceiling_atoms"]) > 0 for quote in quotes)


def test_run_prints_a_verified_paid_answer(watt: Terminal, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    done = watt.run("run", QUESTION, "--max-tokens", "16", "--max-cost", "0.001", "--save", str(receipt))
    assert "Paris" in done.stdout
    checks = watt.json("receipt", "verify", str(receipt))["checks"]
    assert all(check["ok"] is not False for check in checks)
    quoted = watt.json("quote", QUESTION, "--max-tokens", "16")["input_units"]["count"]
    assert int(json.loads(receipt.read_text())["fields"]["unitsIn"]) == quoted
    row = watt.json("jobs")["jobs"][0]
    assert watt.json("job", row["job_id"])["job_id"] == row["job_id"]
    assert row["job_id"] in watt.run("jobs").stdout

    forged = json.loads(receipt.read_text())
    forged["chunks"][0] = forged["chunks"][0][:-4] + "AAA="
    receipt.write_text(json.dumps(forged))
    watt.run("receipt", "verify", str(receipt), code=1)


def test_embed_reads_a_file_and_gives_a_vector_a_line(watt: Terminal, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("a cat\na kitten\n")
    vectors = watt.json("embed", str(lines))["vectors"]
    assert [len(vector) for vector in vectors] == [384, 384]


def test_granted_key_buys_from_its_buyers_account_until_it_is_revoked(watt: Terminal) -> None:
    before = watt.json("wallet", "show")["account_atoms"]
    made = watt.json("keys", "create", "agent", "--cap", "0.5", "--for", "1h")
    agent = ("--wallet", made["key_file"])
    assert "Paris" in watt.run("run", QUESTION, "--max-tokens", "16", *agent).stdout
    assert int(watt.json("wallet", "show")["account_atoms"]) < int(before)
    watt.run("keys", "revoke", "agent")
    # Others may have been granted before, by the same wallet.
    live = {key["key"]: key["live"] for key in watt.json("keys", "list")["keys"]}
    assert live[made["key"]] is False


def test_price_above_the_maximum_is_a_money_error_with_a_remedy(watt: Terminal) -> None:
    failed = watt.run("run", QUESTION, "--max-cost", "0.000001", code=4)
    assert "price_above_max" in failed.stderr
    assert "→" in failed.stderr


def test_lists_show_models_and_nodes(watt: Terminal) -> None:
    assert len(watt.json("models")["models"]) == 2
    assert len(watt.json("nodes")["nodes"]) == 3


def test_unknown_job_is_not_found(watt: Terminal) -> None:
    watt.run("job", "job_nobody", code=3)

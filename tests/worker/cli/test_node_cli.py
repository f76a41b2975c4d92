"""`watt node` as a provider types it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli import shapes
from tests.worker.settle.fake_escrow import CHALLENGE, EXPIRES_AT, ClaimBench
from worker.ledger import Ledger
from worker.node.facts import Notes


def run(*arguments: str) -> tuple[int, str, str]:
    return shapes.run("node", *arguments)


@pytest.mark.parametrize("command", ["start", "status", "drain", "settle", "earnings", "claims"])
def test_every_command_shows_an_example(command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"watt node {command}" in out


def test_status_of_a_fresh_folder_is_json(tmp_path: Path) -> None:
    code, out, _ = run("status", "--json", "--data-dir", str(tmp_path))
    found = json.loads(out)
    assert code == 0
    assert (found["node_id"], found["running"], found["models"]) == (None, False, [])


def test_earnings_of_a_fresh_folder_are_zero(tmp_path: Path) -> None:
    code, out, _ = run("earnings", "--json", "--data-dir", str(tmp_path))
    assert code == 0
    assert set(json.loads(out).values()) == {0}


def shown(tmp_path: Path, command: str) -> Any:
    code, out, _ = run(command, "--json", "--data-dir", str(tmp_path))
    assert code == 0
    return json.loads(out)


def test_claimed_money_is_in_one_place_at_a_time(tmp_path: Path) -> None:
    bench = ClaimBench(tmp_path)
    for seq in (1, 2):
        bench.done_job(seq)
    names = ("owed_without_voucher_atoms", "claimed_atoms", "held_atoms", "settled_atoms")

    def places() -> tuple[int, ...]:
        found = shown(tmp_path, "earnings")
        return tuple(found[name] for name in names)

    assert places() == (2_006, 0, 0, 0)
    bench.at(EXPIRES_AT)
    bench.run()
    assert places() == (0, 2_006, 0, 0)
    bench.chain.hold(bench.session_id, 1_003)
    bench.at(EXPIRES_AT + 60)
    bench.run()
    assert places() == (0, 1_003, 1_003, 0)
    bench.at(EXPIRES_AT + CHALLENGE)
    bench.run()
    assert places() == (0, 0, 1_003, 1_003)
    bench.chain.resolve(bench.session_id, 1_003, is_paid=True)
    bench.at(EXPIRES_AT + CHALLENGE + 60)
    bench.run()
    assert places() == (0, 0, 0, 2_006)
    bench.ledger.close()


def test_money_of_a_claim_that_a_voucher_replaced_is_counted_once(tmp_path: Path) -> None:
    bench = ClaimBench(tmp_path)
    digests = [bench.done_job(seq).digest for seq in (1, 2)]
    bench.at(EXPIRES_AT)
    bench.run()
    bench.vouchers.take(*bench.voucher(2, 2_006, digests))
    bench.run()
    found = shown(tmp_path, "earnings")
    assert (found["settled_atoms"], found["claimed_atoms"], found["owed_without_voucher_atoms"]) == (
        2_006,
        0,
        0,
    )
    bench.ledger.close()


def test_claims_show_what_is_pending_and_when_it_is_final(tmp_path: Path) -> None:
    assert shown(tmp_path, "claims") == {"claims": []}
    assert run("claims", "--data-dir", str(tmp_path))[1] == "no claims\n"
    bench = ClaimBench(tmp_path)
    bench.done_job(1)
    bench.at(EXPIRES_AT)
    bench.run()
    (claim,) = shown(tmp_path, "claims")["claims"]
    assert claim == {
        "session_id": "0x" + "51" * 32,
        "stage": "pending",
        "through_seq": 1,
        "claimed_atoms": 1_003,
        "pending_atoms": 1_003,
        "held_atoms": 0,
        "paid_since_atoms": 0,
        "final_at": EXPIRES_AT + CHALLENGE,
    }
    text = run("claims", "--data-dir", str(tmp_path))[1]
    assert "pending atoms: 1003" in text
    assert "final at: 2027-01-15T10:00:00+00:00" in text
    bench.ledger.close()


@pytest.mark.parametrize("command", ["drain", "settle"])
def test_command_that_needs_the_daemon_says_how_to_start_it(tmp_path: Path, command: str) -> None:
    code, _, errors = run(command, "--data-dir", str(tmp_path))
    assert code == 5
    assert "watt node start" in errors
    assert "→" in errors


def test_start_without_models_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WATT_NODE_MODELS", raising=False)
    code, _, errors = run("start", "--data-dir", str(tmp_path))
    assert code == 1
    assert "WATT_NODE_MODELS" in errors


def test_setting_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    code, _, errors = run("start", "--data-dir", str(tmp_path), "--gateway", "http://x")
    assert code == 1
    assert "WATT_NODE_GATEWAY_URL" in errors


def test_status_for_people_names_the_models(tmp_path: Path) -> None:
    Notes(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")).set_node_id(4)
    code, out, _ = run("status", "--data-dir", str(tmp_path))
    assert code == 0
    assert "node id: 4" in out
    assert "models: none" in out

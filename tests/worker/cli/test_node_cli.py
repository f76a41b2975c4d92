"""`watt node` as a provider types it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from worker.cli.node import app
from worker.ledger import Ledger
from worker.node.facts import Notes


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("command", ["start", "status", "drain", "settle", "earnings"])
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


@pytest.mark.parametrize("command", ["drain", "settle"])
def test_command_that_needs_the_daemon_says_how_to_start_it(tmp_path: Path, command: str) -> None:
    code, _, errors = run(command, "--data-dir", str(tmp_path))
    assert code == 1
    assert "watt node start" in errors
    assert "hint:" in errors


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

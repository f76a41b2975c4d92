"""`watt models` as a provider types it, and the guide's page about it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from marketplace.chain import models as register
from marketplace.protocol.hexes import from_hex, to_hex
from tests.cli import shapes
from tests.hardhat import ROOT, Chain, key
from tests.worker.inference.conftest import llama_config, save_chat_model
from worker.ledger import Ledger
from worker.main import load_engines
from worker.models.serving import ServingBook
from worker.settings import NodeSettings

GUIDE = (ROOT / "docs" / "guide.md").read_text()
COMMANDS = ["add", "verify", "publish", "load", "roll-out", "promote", "roll-back", "list", "remove"]


def run(*arguments: str) -> tuple[int, str, str]:
    return shapes.run("models", *arguments)


def ok(*arguments: str) -> Any:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def refused(*arguments: str, code: int = 1) -> str:
    ended, _, err = run(*arguments)
    assert ended == code
    assert "→ " in err
    return err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of a small model, in folders of their own."""
    place = tmp_path_factory.mktemp("made")
    for seed, name in enumerate(("tiny", "tiny-2")):
        torch.manual_seed(seed)
        save_chat_model(LlamaForCausalLM(llama_config(num_hidden_layers=1)), place / name)
    return place


@pytest.fixture
def node(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folder, beside which the models lie; it sells one."""
    monkeypatch.setenv("WATT_NODE_DATA_DIR", str(tmp_path / "node"))
    monkeypatch.setenv("WATT_NODE_MODELS", '[{"model": "tiny", "price_per_job_atoms": 100}]')
    monkeypatch.chdir(made)
    return tmp_path / "node"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"watt models {command}" in " ".join(out.split())


def test_added_model_is_shown_with_its_id_and_verified(node: Path) -> None:
    added = ok("add", "./tiny")
    assert added["name"] == "tiny"
    (listed,) = ok("list")["models"]
    assert listed == added
    assert ok("verify", "tiny", "--id", added["model_id"])["verified"] is True
    assert "not 0x00" in refused("verify", "tiny", "--id", "0x00")
    assert ok("verify", "./tiny")["model_id"] == added["model_id"]


def test_trial_promotion_and_way_back_are_told_to_the_node(node: Path) -> None:
    ok("add", "./tiny")
    ok("add", "./tiny-2")
    tried = ok("roll-out", "tiny-2", "--canary", "5%")
    assert (tried["version"], tried["canary"], tried["canary_bps"]) == ("tiny", "tiny-2", 500)
    assert ok("promote")["version"] == "tiny-2"
    assert ok("list")["serving"][0]["previous"] == "tiny"
    assert "in use for tiny" in refused("remove", "tiny")
    assert ok("roll-back", "--for", "tiny")["version"] == "tiny"
    assert ok("remove", "tiny-2") == {"name": "tiny-2", "removed": True}
    assert [m["name"] for m in ok("list")["models"]] == ["tiny"]


def test_wrong_wishes_are_refused_with_a_remedy_and_change_nothing(node: Path) -> None:
    ok("add", "./tiny")
    ok("add", "./tiny", "--name", "same")
    assert "very model" in refused("roll-out", "same")
    assert "share" in refused("roll-out", "same", "--canary", "0%")
    assert "not served here" in refused("roll-out", "same", "--for", "other")
    assert "on trial" in refused("promote")
    assert "go back" in refused("roll-back")
    assert "no model is called" in refused("remove", "other", code=3)
    assert "WATT_NODE_OWNER_KEY" in refused("publish", "tiny")
    assert ServingBook(Ledger(NodeSettings().ledger)).stored() == []


def test_infer_process_serves_what_the_commands_said(node: Path) -> None:
    ok("add", "./tiny")
    ok("add", "./tiny-2")
    ok("roll-out", "tiny-2", "--canary", "50%")
    ok("load", "tiny-2", "--priced-as", "tiny")
    engines = load_engines(NodeSettings())
    shown = [(m.name, m.source, m.canary_bps) for m in engines.served]
    assert shown == [("tiny", "tiny", 0), ("tiny", "tiny", 5_000), ("tiny-2", "tiny", 0)]
    engines.close()


@pytest.mark.chain
def test_models_of_the_guide(
    node: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every command of the page, in its order."""
    chain.deployment.save(tmp_path / "deployment.json")
    monkeypatch.setenv("WATT_NODE_RPC_URL", chain.url)
    monkeypatch.setenv("WATT_NODE_DEPLOYMENT_PATH", str(tmp_path / "deployment.json"))
    monkeypatch.setenv("WATT_NODE_OWNER_KEY", to_hex(key(6).secret))
    added = ok("add", "./tiny")
    section = GUIDE.split("### New versions of a model\n")[1].split("\n#")[0]
    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) for line in block.splitlines()
    ]
    assert {shlex.split(line)[2] for line in lines} == set(COMMANDS) - {"load"}
    for line in lines:
        program, group, *arguments = shlex.split(line)
        assert (program, group) == ("watt", "models")
        code, _, err = run(*arguments)
        assert code == 0, f"{line}\n{err}"
    found = register.resolve(chain.client, "tiny", "2.0")
    assert found is not None
    assert found.fixed
    assert found.model_id != from_hex(added["model_id"], 32)
    assert register.publisher_of(chain.client, "tiny") == key(6).address


@pytest.mark.chain
def test_what_is_published_already_is_not_sent_again(
    node: Path, chain: Chain, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    chain.deployment.save(tmp_path / "deployment.json")
    monkeypatch.setenv("WATT_NODE_RPC_URL", chain.url)
    monkeypatch.setenv("WATT_NODE_DEPLOYMENT_PATH", str(tmp_path / "deployment.json"))
    monkeypatch.setenv("WATT_NODE_OWNER_KEY", to_hex(key(6).secret))
    ok("add", "./tiny")
    wish = ("publish", "tiny", "--as", "once@1", "--channel", "latest")
    assert len(ok(*wish)["sent"]) == 3
    assert ok(*wish)["sent"] == []
    monkeypatch.setenv("WATT_NODE_OWNER_KEY", to_hex(key(7).secret))
    assert "NotPublisher" in refused("publish", "tiny", "--as", "once@2", code=5)

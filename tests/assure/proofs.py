"""Symbolic proofs by halmos: no counterexample, none left open, and planted bugs found."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.assure.figures import Figure
from tests.assure.tools import BUILD, ROOT, ToolFailed, run

PROOFS: Final = ROOT / "tests" / "proofs"
PLANTS: Final = ROOT / "tests" / "assure" / "plants.toml"
_OUT, _CACHE = "build/forge-proofs", "cache/forge-proofs"
_PROFILE = {"FOUNDRY_PROFILE": "proofs"}
_ASSERTION_SECONDS = 60
_SLOWEST_SECONDS = 60
# As halmos numbers them.
_PROVEN, _COUNTEREXAMPLE, _TIMEOUT = 0, 1, 2
_OTHERWISE = {3: "stuck", 4: "no path ends well, so nothing is proven", 5: "halmos failed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A bug, as a change of one place in one file, and a proof that it must break."""

    file: str
    old: str
    new: str
    proof: str


def measure(*, long: bool) -> list[Figure]:
    """Proves everything in tests/proofs, and sees proofs fail over a copy with bugs planted in it.

    `long` changes nothing.
    """
    files = [file.read_text() for file in sorted(PROOFS.glob("*.t.sol"))]
    written = {name for source in files for name in named(source)}
    plants = read_plants(PLANTS.read_text())
    _build(ROOT)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        copy = planted(Path(folder), plants)
        _build(copy)
        only = f"({'|'.join(plant.proof for plant in plants)})"
        broken = pool.submit(_halmos, copy, "planted", "--function", only, "--early-exit")
        shares = [pool.submit(_halmos, ROOT, name, "--contract", name) for name in contracts(files)]
        return [*judge([s.result() for s in shares], written), *judge_plants(broken.result(), plants)]


def judge(reports: Sequence[dict[str, Any]], written: set[str]) -> list[Figure]:
    """Figures of halmos' reports over the proofs that the sources name."""
    results = {name: test for report in reports for name, test in _results(report).items()}
    by_code = {name: test["exitcode"] for name, test in results.items()}
    refuted = tuple(
        f"{name}: {_models(results[name])}" for name, code in by_code.items() if code == _COUNTEREXAMPLE
    )
    late = tuple(name for name, code in by_code.items() if code == _TIMEOUT)
    other = tuple(
        f"{name}: {_OTHERWISE.get(code, code)}" for name, code in by_code.items() if code > _TIMEOUT
    )
    cut = tuple(name for name, test in results.items() if test["num_bounded_loops"])
    absent = tuple(sorted(written - results.keys()))
    seconds = {name: test["time"][0] for name, test in results.items()}
    slowest = max(seconds, key=seconds.__getitem__, default="")
    return [
        Figure(
            name="properties proven", value=sum(code == _PROVEN for code in by_code.values()), goal="≥ 20"
        ),
        Figure(name="counterexamples", value=len(refuted), goal="= 0", why=refuted),
        Figure(name="proofs out of time", value=len(late), goal="= 0", why=late),
        Figure(name="proofs that ended otherwise", value=len(other), goal="= 0", why=other),
        Figure(name="proofs that cut a loop short", value=len(cut), goal="= 0", why=cut),
        Figure(name="proofs written and not run", value=len(absent), goal="= 0", why=absent),
        Figure(
            name="slowest proof",
            value=round(seconds.get(slowest, 0.0), 1),
            unit="s",
            goal=f"≤ {_SLOWEST_SECONDS}",
            why=(slowest,),
        ),
    ]


def judge_plants(report: dict[str, Any], plants: Sequence[Plant]) -> list[Figure]:
    """How many planted bugs their proofs found."""
    codes = {name: test["exitcode"] for name, test in _results(report).items()}
    missed = tuple(f"{p.proof} holds with {p.new!r} in {p.file}" for p in plants if codes.get(p.proof) != 1)
    found = len(plants) - len(missed)
    return [Figure(name="planted bugs found", value=found, goal=f"= {len(plants)}", why=missed)]


def named(source: str) -> list[str]:
    """Names of the proofs in a file."""
    return re.findall(r"^    function (check_\w+)\(", source, re.MULTILINE)


def contracts(sources: Sequence[str]) -> list[str]:
    """Names of the contracts that prove something, those with most proofs first."""
    counts = {
        name: len(named(body))
        for source in sources
        for name, body in re.findall(r"^contract (\w+)(.*?)^}", source, re.MULTILINE | re.DOTALL)
    }
    return sorted((name for name in counts if counts[name]), key=lambda name: -counts[name])


def read_plants(text: str) -> list[Plant]:
    """The bugs to plant; at least one."""
    plants = [Plant(**entry) for entry in tomllib.loads(text)["plant"]]
    if not plants:
        raise ValueError("no bug to plant")
    return plants


def planted(folder: Path, plants: Sequence[Plant]) -> Path:
    """A copy of what the proofs are built from, with all bugs in it; each must fit exactly one place."""
    # With what was built of it, so that only what a bug changes is built again.
    for name in ("contracts", "tests/proofs", _OUT, _CACHE):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name)
    for name in ("foundry.toml", "remappings.txt", "package.json"):
        shutil.copy(ROOT / name, folder)
    (folder / "tests" / "assure").mkdir()
    shutil.copy(ROOT / "tests" / "assure" / "solc", folder / "tests" / "assure")
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    for plant in plants:
        path = folder / plant.file
        source = path.read_text()
        if source.count(plant.old) != 1:
            raise ValueError(f"{plant.file} has not exactly one {plant.old!r}")
        path.write_text(source.replace(plant.old, plant.new))
    return folder


def _build(root: Path) -> None:
    """As halmos would, which then finds nothing to build, however many of it run at once."""
    command = ["forge", "build", "--ast", "--root", str(root), "--extra-output", "storageLayout", "metadata"]
    run(command, minutes=15, environment=_PROFILE, cwd=root)


def _halmos(root: Path, name: str, *only: str) -> dict[str, Any]:
    report = BUILD / f"halmos-{name}.json"
    report.unlink(missing_ok=True)
    command = ["halmos", "--root", str(root), "--forge-build-out", _OUT, "--no-status"]
    command += ["--solver-command", "yices-smt2", "--solver-timeout-assertion", f"{_ASSERTION_SECONDS}s"]
    # A case has three seats.
    command += ["--default-bytes-lengths", "0,64,65", "--loop", "3", "--json-output", str(report), *only]
    # 1: something is not proven, and the report says what.
    output = run(command, minutes=30, environment=_PROFILE, allowed=(0, 1), cwd=root)
    if not report.exists():
        raise ToolFailed(f"halmos made no report:\n{output[-2000:]}")
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def _results(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Results by the proof's name."""
    tests = (test for tests in report["test_results"].values() for test in tests)
    return {str(test["name"]).partition("(")[0]: test for test in tests}


def _models(test: dict[str, Any]) -> str:
    return str(test.get("models"))[:300]

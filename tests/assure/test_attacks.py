"""The runner of attacks: what it reads, what it believes, and what it refuses to believe."""

from __future__ import annotations

import json
import tomllib

import pytest

from tests.assure.attacks import (
    ATTACKS,
    ROOT,
    Outcome,
    Result,
    Stale,
    Twin,
    back_doors,
    figures,
    missed,
    plan_of,
    result_of,
    rows_of,
    table,
)

TWIN = Twin(attack=7, contract="Escrow", file="a.sol", weakness="forgets", before="x > 0", after="true")
ENTRY = """
[[twin]]
attack = 7
contract = "Escrow"
file = "a.sol"
weakness = "forgets"
before = "x > 0"
after = "true"
"""


def _source(name: str) -> str:
    return (ROOT / name).read_text()


def _test(name: str, reason: str = "") -> Outcome:
    return Outcome(name=name, passed=not reason, reason=reason)


def test_plan_holds_twins_and_reasons() -> None:
    plan = plan_of(ENTRY + '[[not_applicable]]\nattack = 9\nreason = "there is none"\n')
    assert plan.twins == (TWIN,)
    assert plan.not_applicable == {9: "there is none"}


def test_twin_changes_the_one_place() -> None:
    assert TWIN.text(lambda _: "if (x > 0) {}") == "if (true) {}"


@pytest.mark.parametrize("source", ["if (x >= 0) {}", "x > 0; x > 0;"])
def test_twin_is_stale_unless_its_place_is_there_once(source: str) -> None:
    with pytest.raises(Stale):
        TWIN.text(lambda _: source)


def test_every_twin_fits_the_contracts() -> None:
    stale = []
    for twin in plan_of((ATTACKS / "twins.toml").read_text()).twins:
        try:
            assert twin.text(_source) != _source(twin.file)
        except Stale as problem:
            stale.append(str(problem))
    assert stale == []


def test_result_line_is_read() -> None:
    entry = {"suite": "S", "test": "test_Attack07_A()", "passed": False, "reason": "07: no"}
    line = json.dumps({"name": "3", "abi": [{"type": "receive"}], "tests": [entry]})
    tests = (_test("test_Attack07_A()", "07: no"),)
    assert result_of(line) == ("3", Result(tests=tests, abi=({"type": "receive"},)))


def test_broken_rule_catches_a_twin() -> None:
    broken = _test("test_Attack07_B()", "07: money moved: 1 != 0")
    assert missed(7, [_test("test_Attack07_A()"), broken]) == ""


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ([], "it has no tests"),
        ([_test("test_Attack07_A()")], "its tests pass"),
        ([_test("test_Attack08_A()", "08: no")], "it has no tests"),
        ([_test("setUp()", "EvmError: Revert")], "set-up broke: EvmError: Revert"),
        ([_test("test_Attack07_A()", "Escrow_ZeroKey()")], "broke instead: Escrow_ZeroKey()"),
        ([_test("test_Attack07_A()", "08: another rule")], "broke instead: 08: another rule"),
    ],
)
def test_anything_else_catches_none(tests: list[Outcome], why: str) -> None:
    assert missed(7, tests) == why


def test_back_doors_are_what_the_list_does_not_name() -> None:
    abi = [
        {"type": "function", "name": "withdraw", "stateMutability": "nonpayable"},
        {"type": "function", "name": "rescue", "stateMutability": "nonpayable"},
        {"type": "function", "name": "buy", "stateMutability": "payable"},
        {"type": "function", "name": "feeBps", "stateMutability": "view"},
        {"type": "receive", "stateMutability": "payable"},
        {"type": "event", "name": "Withdrawn"},
    ]
    assert back_doors(abi, ["withdraw", "buy", "gone"]) == [
        "buy takes ether",
        "gone does not exist",
        "receive takes ether",
        "rescue is not listed",
    ]


def test_figures_count_what_the_rows_show() -> None:
    plan = plan_of(ENTRY + '[[not_applicable]]\nattack = 9\nreason = "there is none"\n')
    rows = rows_of(plan, [_test("test_Attack07_MoneyStays()")], ["its tests pass"])
    surface = {"Escrow": {"rescue": {"caller": "treasury", "moves": "all"}}}
    made = figures(plan, rows, surface)
    found = {figure["name"]: (figure["value"], figure["goal"], figure["met"]) for figure in made}
    assert found == {
        "attacks repelled": (1, "= 51", False),
        "attacks that a weakened twin lets through": (0, "= 51", False),
        "weakened twins caught": (0, "= 1", False),
        "owner calls that can move a user's money": (1, "= 0", False),
    }
    assert "✓ 07  money stays\n    ✗ its tests pass: a twin that forgets" in table(rows)


def test_operator_moves_no_money() -> None:
    surface = tomllib.loads((ATTACKS / "surface.toml").read_text())
    entries = [entry for functions in surface.values() for entry in functions.values()]
    assert {tuple(sorted(entry)) for entry in entries} == {("caller", "moves")}
    assert [entry["moves"] for entry in entries if entry["caller"] == "treasury"] == ["nothing"]

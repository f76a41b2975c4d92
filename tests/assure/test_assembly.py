"""Assembly lines found, changed and believed only where every one of the same text was tried."""

from __future__ import annotations

from typing import Any

import pytest

from tests.assure import assembly, coverage

FILE = "contracts/Escrow.sol"
SOURCE = """function f() {
assembly ("memory-safe") {
let x := mload(0x40) // free
if lt(x, 1) { revert(0, 0) }
for {} lt(x, y) { x := add(x, 1) } {
mstore(x, 1)
}
switch x
case 0 {
mstore(x, 1)
}
}
mstore(x, 1);
}"""
LINES = SOURCE.splitlines()


def _result(**survived: list[str]) -> dict[str, Any]:
    rows = [
        {
            "file": FILE,
            "code": line.code,
            "killed": {},
            "survived": survived.get(f"line{line.number}", []),
            "been": {"if 1 { revert(0, 0) }": "a test"},
        }
        for line in assembly.lines_of(FILE, SOURCE)
    ]
    return {"lines": rows}


def test_only_lines_inside_a_block_are_assembly() -> None:
    assert [line.number for line in assembly.lines_of(FILE, SOURCE)] == [3, 4, 5, 6, 8, 9, 10]
    assert assembly.lines_of(FILE, SOURCE)[0].code == "let x := mload(0x40)"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("if lt(x, 1) { revert(0, 0) }", [["if 0 { revert(0, 0) }"], ["if 1 { revert(0, 0) }"]]),
        ("for {} lt(x, y) { x := 1 } {", [["for {} 0 { x := 1 } {"]]),
        ("let x := f(1)", [["let x := add(f(1), 1)", "let x := not(f(1))", "let x := 0"]]),
        ("mstore(0x00, g(1))", [["{}"]]),
        ("case 0 {", []),
        ("let amount", []),
    ],
)
def test_change_says_that_its_line_does_nothing_or_something_else(
    code: str, expected: list[list[str]]
) -> None:
    assert assembly.changes(code) == expected


def test_line_is_shown_when_every_one_of_its_text_was() -> None:
    sources = {FILE: LINES}
    assert (FILE, "mstore(x, 1)") in assembly.shown(_result(), sources)
    assert (FILE, "let x := mload(0x40) // free") in assembly.shown(_result(), sources)
    assert (FILE, "mstore(x, 1)") not in assembly.shown(_result(line10=["{}"]), sources)


@pytest.mark.parametrize(
    ("code", "survivor", "expected"),
    [
        ("if a { b() }", "if 0 { b() }", "if a { revert(0, 0) } if a { b() }"),
        ("if a { b() }", "if 1 { b() }", "if iszero(a) { revert(0, 0) } if a { b() }"),
        ("x := a", "x := 0", "if 1 { revert(0, 0) } x := a"),
    ],
)
def test_probe_reverts_where_the_change_made_no_difference(code: str, survivor: str, expected: str) -> None:
    assert assembly.probe(code, survivor) == expected


def test_line_that_tests_were_seen_at_is_shown_though_its_change_fails_none() -> None:
    code = "if lt(x, 1) { revert(0, 0) }"
    assert (FILE, code) in assembly.shown(_result(line4=["if 1 { revert(0, 0) }"]), {FILE: LINES})
    assert (FILE, code) not in assembly.shown(_result(line4=["if 0 { revert(0, 0) }"]), {FILE: LINES})


def test_line_that_came_since_is_not_shown() -> None:
    twice = {FILE: [*LINES[:2], "mstore(x, 1)", "sstore(x, 1)", *LINES[2:]]}
    assert not {(FILE, "mstore(x, 1)"), (FILE, "sstore(x, 1)")} & assembly.shown(_result(), twice)


def test_shown_line_needs_no_counter_and_another_does() -> None:
    report = f"SF:{FILE}\nDA:1,4\nDA:3,0\nDA:4,0\nBRDA:4,0,0,-\nend_of_record\n"
    sources = {FILE: LINES}
    shown = {(FILE, LINES[2]), (FILE, LINES[3])}
    assert all(figure.met for figure in coverage.judge(coverage.parse(report), sources, {}, shown))
    figures = coverage.judge(coverage.parse(report), sources, {}, shown - {(FILE, LINES[3])})
    assert {"gaps unexplained", "branches taken"} <= {figure.name for figure in figures if not figure.met}

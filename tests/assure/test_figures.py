"""The table and the file say of every figure whether its goal is met."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.assure import __main__ as assure
from tests.assure.figures import Figure, Part, percent, table
from tests.assure.tools import ROOT, ToolFailed, run


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [
        (0, "= 0", True),
        (1, "= 0", False),
        (98, "≥ 98", True),
        (97.99, "≥ 98", False),
        (61, "≤ 60", False),
        (7, "", True),
    ],
)
def test_goal_is_met_when_the_value_reaches_it(value: float, goal: str, met: bool) -> None:
    assert Figure(name="any", value=value, goal=goal).met is met


def test_percentage_is_a_hundred_only_when_nothing_is_missing() -> None:
    assert percent(99_999, 100_000) == 99.99
    assert percent(3, 3) == 100.0
    assert percent(0, 0) == 100.0


def test_part_without_figures_has_shown_nothing() -> None:
    assert not Part(name="empty", figures=(), seconds=1).met


def test_table_shows_a_miss_with_what_is_in_its_way() -> None:
    missed = Figure(name="gaps", value=2, goal="= 0", why=("here", "there"))
    reached = Figure(name="lines", value=100, unit="%", goal="= 100", why=("not shown",))
    text = table([Part(name="coverage", figures=(reached, missed), seconds=3)])
    assert "✗ coverage   gaps" in text
    assert "    here\n    there" in text
    assert "not shown" not in text


def test_run_writes_every_figure_and_fails_when_a_goal_is_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, written = _run(monkeypatch, tmp_path, {"good": _good, "bad": _bad})
    assert code == 1
    assert [(f["part"], f["name"], f["met"]) for f in written["figures"]] == [
        ("good", "found", True),
        ("bad", "found", False),
    ]
    assert set(written) == {"commit", "date", "machine", "figures"}
    assert "✗ bad" in capsys.readouterr().out
    assert _run(monkeypatch, tmp_path, {"good": _good})[0] == 0


def test_long_form_keeps_a_file_for_each_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assure, "RESULTS", f"build/test-{tmp_path.name}")
    _run(monkeypatch, tmp_path, {"good": _good, "bad": _bad}, "--long")
    kept = sorted((ROOT / assure.RESULTS).iterdir())
    assert [[f["part"] for f in json.loads(path.read_text())["figures"]] for path in kept] == [
        ["bad"],
        ["good"],
    ]
    shutil.rmtree(ROOT / assure.RESULTS)


def test_part_whose_tool_breaks_has_failed_and_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, written = _run(monkeypatch, tmp_path, {"broken": _broken, "good": _good})
    assert code == 1
    assert [f["met"] for f in written["figures"]] == [False, True]
    assert "the tool is missing" in capsys.readouterr().out


def test_every_part_is_documented_and_every_documented_part_exists() -> None:
    page = (ROOT / "docs" / "assurance.md").read_text()
    assert set(re.findall(r"^## (\w+)$", page, re.MULTILINE)) == set(assure.PARTS)


def test_part_that_gives_rows_is_judged_as_any_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, written = _run(monkeypatch, tmp_path, {"rows": assure._rows_of(_rows)})
    assert code == 1
    assert [(f["name"], f["value"], f["unit"], f["met"]) for f in written["figures"]] == [
        ("mismatches", 1, "calls", False)
    ]
    assert "mismatches" in capsys.readouterr().out


def test_tool_that_takes_too_long_or_is_missing_has_failed() -> None:
    with pytest.raises(ToolFailed, match="longer than"):
        run(("sleep", "60"), minutes=0.001)
    with pytest.raises(ToolFailed, match="scripts/setup assure"):
        run(("no-such-tool",), minutes=1)
    with pytest.raises(ToolFailed, match="ended with 3"):
        run(("sh", "-c", "exit 3"), minutes=1)


def _run(
    monkeypatch: pytest.MonkeyPatch, folder: Path, parts: dict[str, Any], *options: str
) -> tuple[int, dict[str, Any]]:
    monkeypatch.setattr(assure, "PARTS", parts)
    monkeypatch.setattr(assure, "NAME", f"test-{folder.name}")
    code = assure.main(options)
    report = ROOT / "build" / f"{assure.NAME}.json"
    written = json.loads(report.read_text())
    report.unlink()
    return code, written


def _good(*, long: bool) -> list[Figure]:
    return [Figure(name="found", value=0, goal="= 0")]


def _bad(*, long: bool) -> list[Figure]:
    return [Figure(name="found", value=1, goal="= 0")]


def _rows(long: bool) -> list[dict[str, Any]]:
    return [{"name": "mismatches", "value": 1, "unit": "calls", "goal": "= 0", "met": True}]


def _broken(*, long: bool) -> list[Figure]:
    raise ToolFailed("the tool is missing")

"""The gate itself: every test is run by exactly one suite, in time that CI has."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import pytest

from tests.house import gate, host
from tests.house.tree import ROOT, python_files

CI_MINUTES = 50


def test_budget_fits_into_what_ci_has() -> None:
    assert sum(gate.budget().values()) <= CI_MINUTES


def test_every_suite_has_a_budget_and_every_budget_a_suite() -> None:
    assert [suite.name for suite in gate.suites()] == list(gate.budget())


def test_each_combination_of_markers_is_run_by_exactly_one_suite() -> None:
    expressions = {name: gate._only(name) for name in ("", *gate.LADDER)}
    for size in range(len(gate.LADDER) + 1):
        for carried in itertools.combinations(gate.LADDER, size):
            marks = {name: name in carried for name in gate.LADDER}
            chosen = [name for name, text in expressions.items() if eval(text, {}, marks)]  # noqa: S307 - our text
            assert len(chosen) == 1, carried


def test_tests_of_the_whole_market_are_where_their_suite_looks() -> None:
    marked = {p.relative_to(ROOT).parts[1] for p in python_files("tests") if "mark.e2e" in p.read_text()}
    assert marked - {"house"} == {"local", "e2e"}


def test_a_marked_test_that_no_suite_reads_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((gate.ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile("import pytest\n@pytest.mark.chain\ndef test_a(): pass")
    run = pytester.runpytest_subprocess("-p", "no:xdist", "-o", "markers=chain")
    assert run.ret == pytest.ExitCode.USAGE_ERROR
    run.stderr.fnmatch_lines(["*test_a is marked chain, and its suite does not read that file*"])


def test_a_slow_suite_may_take_twice_its_minutes_of_what_all_have_left() -> None:
    assert gate.allowed(minutes=3, left=30) == 6
    assert gate.allowed(minutes=0.25, left=30) == 2.25
    assert gate.allowed(minutes=2, left=3) == 3
    assert gate.allowed(minutes=2, left=-1) == 0


@pytest.mark.parametrize(("seconds", "slow"), [(0.2, 1.0), (0.84, 1.05), (9.0, host.MOST)])
def test_host_is_as_slow_as_its_best_try_but_never_called_fast(
    monkeypatch: pytest.MonkeyPatch, seconds: float, slow: float
) -> None:
    tries = iter([5.0, seconds, 6.0, 5.0, 5.0])
    monkeypatch.setattr(host, "USUAL_SECONDS", 0.8)
    monkeypatch.setattr(host, "_work", lambda: next(tries))
    assert host.slowness() == pytest.approx(slow)


def test_a_suite_on_a_slow_host_is_given_and_charged_usual_minutes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[float] = []

    def within(seconds: float, *_: object) -> int:
        given.append(seconds)
        return 0

    monkeypatch.setattr(gate, "slowness", lambda: 1.5)
    monkeypatch.setattr(gate, "_within", within)
    outcome, minutes = gate._run(gate.Suite("ruff", ()), 50, {}, strict=True)
    assert given == [60 * 1.5 * (gate.budget()["ruff"] + gate.STALL)]
    assert (outcome.passed, outcome.failed) == (1, 0)
    assert minutes < 0.01
    assert "host 1.50 times slower" in capsys.readouterr().out


def test_what_failed_is_named_again_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ends = {"ruff": 3, "format": 0}
    made = [
        gate.Suite(name, (sys.executable, "-c", f"raise SystemExit({code})")) for name, code in ends.items()
    ]
    monkeypatch.setattr(gate, "suites", lambda: made)
    monkeypatch.setattr(gate, "LOGS", tmp_path)
    assert gate.main([]) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "✗ ruff: 0 passed, 1 failed",
        "1 passed, 1 failed, 0 skipped",
    ]


def test_files_of_the_tests_are_in_memory_where_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "MEMORY", tmp_path)
    monkeypatch.setattr(gate, "ROOM_BYTES", 0)
    with gate.surroundings() as environment:
        folder = Path(environment["TMPDIR"])
        assert folder.parent == tmp_path
    assert not folder.exists()
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(gate, "ROOM_BYTES", 1 << 60)
    with gate.surroundings() as environment:
        assert "TMPDIR" not in environment


def test_suite_over_its_time_is_ended_with_all_it_started(tmp_path: Path) -> None:
    program = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    assert gate._within(0.5, [sys.executable, "-c", program], tmp_path / "log", dict(os.environ)) is None


def test_skips_fail_a_strict_run_and_are_counted(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((gate.ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile("import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no server')")
    assert pytester.runpytest_subprocess("--counts=c.json").ret == 0
    assert (pytester.path / "c.json").read_text() == "[1, 0, 1]"
    strict = pytester.runpytest_subprocess("--strict-skips")
    assert strict.ret == pytest.ExitCode.TESTS_FAILED
    strict.stdout.fnmatch_lines(["*1 tests were skipped, none may be: *test_b*"])


def test_failed_invariant_is_named_before_the_calls_that_broke_it() -> None:
    calls = [f"    Counterexample {number}" for number in range(500)]
    log = ["  ✔ test_a()", "", "  1 passing", "  1 failing", "", '    Error: Broken("verdict", 3, 0)', *calls]
    shown = gate.telling(log)
    assert shown[2] == '    Error: Broken("verdict", 3, 0)'
    assert len(shown) == gate.TAIL_LINES
    assert gate.telling(calls) == calls[-gate.TAIL_LINES :]

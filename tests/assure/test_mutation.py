"""A whole run, over a contract of five lines whose tests leave one gap."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.assure import mutation
from tests.assure.mutants.mutant import drawn
from tests.assure.mutation import digest, opened
from tests.assure.tiny import GATE, GATE_TEST, planted
from tests.assure.tools import ToolFailed


def test_tests_kill_all_but_what_they_leave_open_and_a_second_run_asks_nothing(tmp_path: Path) -> None:
    files = {"contracts/Gate.sol": GATE, "tests/contracts/Gate.t.sol": GATE_TEST}
    project = planted(tmp_path / "project", files)
    with opened(project, tmp_path / "work", seed=1, jobs=1) as (run, by_file):
        selection = run.select(drawn(by_file, 1), 100)
        verdicts = run.judge(selection.taken)
    alive = {m.after for m in selection.taken if not verdicts[m.id].killed_by}
    assert alive == {"if (a >= _LIMIT) revert Gate_TooMuch(a, _LIMIT);"}
    assert len(selection.taken) == 10
    assert {v.stage for v in verdicts.values()} == {"", "contract", "function"}

    with opened(project, tmp_path / "work", seed=1, jobs=1) as (run, by_file):
        again = run.select(drawn(by_file, 1), 100)
        assert (again.taken, run.judge(again.taken)) == (selection.taken, verdicts)


def test_run_refuses_tests_that_fail_without_any_mutant(tmp_path: Path) -> None:
    broken = GATE_TEST.replace("gate.check(3) == 3", "gate.check(3) == 4")
    files = {"contracts/Gate.sol": GATE, "tests/contracts/Gate.t.sol": broken}
    project = planted(tmp_path / "project", files)
    with pytest.raises(SystemExit, match="test_SmallNumbersPass"), opened(project, tmp_path / "work", 1, 1):
        pass


def test_digest_knows_every_file(tmp_path: Path) -> None:
    project = planted(tmp_path, {"contracts/Gate.sol": GATE})
    before = digest(project, ["contracts"])
    assert before == digest(project, ["contracts"])
    (project / "contracts" / "Gate.sol").write_text(GATE.replace("10", "11"))
    assert before != digest(project, ["contracts"])


def test_short_form_shows_the_committed_result_and_of_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = {"name": "mutation score", "value": 96.5, "unit": "%", "goal": 95.0, "met": True}
    result = tmp_path / "mutation.json"
    monkeypatch.setattr(mutation, "RESULT", result)
    for of in ([], ["contracts/Gate.sol", "contracts/Door.sol"]):
        mutation.keep(result, {"of": of, "commit": "0123456789abcdef", "figures": [figure]})
    whole, part = mutation.run(long=False)
    assert (whole["name"], whole["value"], whole["goal"]) == ("mutation score, at 0123456789", 96.5, "≥ 95")
    assert part["name"] == "mutation score, of Gate and Door, at 0123456789"


def test_run_takes_the_place_of_the_last_one_over_the_same_files(tmp_path: Path) -> None:
    result = tmp_path / "new" / "mutation.json"
    for of, seed in (([], 1), (["a.sol"], 2), ([], 3)):
        mutation.keep(result, {"of": of, "seed": seed})
    assert json.loads(result.read_text()) == {"runs": [{"of": [], "seed": 3}, {"of": ["a.sol"], "seed": 2}]}


def test_short_form_without_a_committed_result_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutation, "ROOT", tmp_path)
    monkeypatch.setattr(mutation, "RESULT", tmp_path / "mutation.json")
    with pytest.raises(ToolFailed, match=r"mutation\.json is missing"):
        mutation.run(long=False)

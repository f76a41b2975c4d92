"""Every known attack has a test and a twin that the test must catch, or a reason to have none."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from tests.assure.attacks import ATTACKS, ITEMS, back_doors, plan_of
from tests.house.tree import ROOT, shown

PLAN = plan_of((ATTACKS / "twins.toml").read_text())
SUITES = sorted(ATTACKS.glob("*.t.sol"))
# A test, up to the brace that ends it.
TEST = re.compile(r"function (test_Attack(\d\d)_[A-Z]\w*)\(\) public \{\n(.*?)\n    \}\n", re.DOTALL)
ASSERTION = re.compile(r"\b(?:assert[A-Z]\w*|_refused|_works)\(")


@pytest.mark.parametrize("name", ["Till", "Receiver"])
def test_whoever_calls_the_till_is_listed(name: str) -> None:
    """The attacks say it too, minutes later; the interface that is packaged says it at once."""
    listed = tomllib.loads((ATTACKS / "surface.toml").read_text())[name]
    abi = json.loads((ROOT / f"marketplace/chain/abi/{name}.json").read_text())["abi"]
    assert back_doors(abi, listed) == []


def test_every_attack_has_a_test_and_a_twin_or_a_reason() -> None:
    tested = {int(number) for path in SUITES for _, number, _ in TEST.findall(path.read_text())}
    bitten = {twin.attack for twin in PLAN.twins}
    absent = set(PLAN.not_applicable)
    assert tested | absent == set(ITEMS)
    assert bitten == tested - absent
    assert all(PLAN.not_applicable.values())


def test_every_attack_test_is_named_after_its_attack() -> None:
    functions = {(shown(p), n) for p in SUITES for n in re.findall(r"function (test\w*)", p.read_text())}
    named = {(shown(p), name) for p in SUITES for name, _, _ in TEST.findall(p.read_text())}
    assert functions == named


def test_every_attack_test_states_its_own_rule() -> None:
    found = [
        f"{shown(path)} {name}"
        for path in SUITES
        for name, number, body in TEST.findall(path.read_text())
        if not ASSERTION.search(body) or f'"{number}: ' not in body
    ]
    assert found == []


def test_twins_are_small_changes_of_shipped_files() -> None:
    for twin in PLAN.twins:
        assert (ROOT / twin.file).is_relative_to(ROOT / "contracts")
        assert not twin.file.startswith("contracts/mocks/")
        assert len(twin.after.splitlines()) <= 6, twin

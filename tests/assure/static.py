"""Slither over the contracts: what it finds is fixed, or answered in slither.toml."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from tests.assure.figures import Figure
from tests.assure.tools import BUILD, ROOT, ToolFailed, run

ANSWERS: Final = ROOT / "tests" / "assure" / "slither.toml"
GRAVE: Final = ("High", "Medium")
_OURS = "node_modules|contracts/mocks|tests/"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """What a detector says about a place, as in `Escrow.withdrawFees()`."""

    detector: str
    place: str


def measure(*, long: bool) -> list[Figure]:
    """Findings of high or medium impact that nobody has answered; `long` changes nothing."""
    report = BUILD / "slither.json"
    report.unlink(missing_ok=True)
    command = ["slither", ".", "--compile-force-framework", "foundry", "--filter-paths", _OURS, "--fail-none"]
    run([*command, "--json", str(report)], minutes=10, environment={"FOUNDRY_PROFILE": "static"})
    return judge(json.loads(report.read_text()), answers(ANSWERS.read_text()))


def judge(report: dict[str, Any], answered: dict[Finding, str]) -> list[Figure]:
    """Compares a report with the answers."""
    if not report.get("success"):
        raise ToolFailed(f"slither: {report.get('error')}")
    results = report["results"].get("detectors", [])
    grave = [result for result in results if result["impact"] in GRAVE]
    found = {_finding(result): result["description"].splitlines()[0] for result in grave}
    return [
        Figure(
            name="findings of high or medium impact, unanswered",
            value=len(found.keys() - answered.keys()),
            goal="= 0",
            why=tuple(
                f"{f.detector} at {f.place}: {found[f]}" for f in _sorted(found.keys() - answered.keys())
            ),
        ),
        Figure(
            name="answers to what is not found any more",
            value=len(answered.keys() - found.keys()),
            goal="= 0",
            why=tuple(f"{f.detector} at {f.place}" for f in _sorted(answered.keys() - found.keys())),
        ),
        Figure(name="findings answered with a reason", value=len(found.keys() & answered.keys())),
        Figure(name="findings of low impact or style", value=len(results) - len(grave)),
    ]


def answers(text: str) -> dict[Finding, str]:
    """Reasons by finding; an answer without a reason, or given twice, is a mistake."""
    known: dict[Finding, str] = {}
    for entry in tomllib.loads(text).get("finding", []):
        finding = Finding(detector=entry["detector"], place=entry["place"])
        if finding in known or not entry["reason"].strip():
            raise ValueError(f"each finding is answered once, with a reason: {finding}")
        known[finding] = entry["reason"]
    return known


def _finding(result: dict[str, Any]) -> Finding:
    first = result["elements"][0]
    fields = first.get("type_specific_fields", {})
    parent = fields.get("parent", {})
    # A statement or variable is placed in the function or contract around it.
    own = fields.get("signature") or first["name"]
    if first["type"] == "node":
        own = parent.get("type_specific_fields", {}).get("signature", parent.get("name", ""))
        parent = parent.get("type_specific_fields", {}).get("parent", {})
    owner = parent.get("name", "")
    return Finding(detector=result["check"], place=f"{owner}.{own}" if owner else own)


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings)

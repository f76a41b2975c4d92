"""What calls cost, to the unit: a change of cost is a line of the diff."""

from __future__ import annotations

import json

import pytest

from tests.bench.gas import SNAPSHOT, measure

# An order is proven against once, so a proof writes a word that was 0: 22,100 of these. With base, calldata,
# two signatures and the slash there is nothing left to save the rest from: a promise kept, a goal missed.
MISSED = {"prove two receipts for one order, steady", "prove an overcharge, steady"}


@pytest.mark.chain
@pytest.mark.timeout(300)
def test_calls_cost_what_they_did() -> None:
    """Stale: run `scripts/gas --accept` and commit what changed."""
    figures = measure()
    assert {figure.name: figure.value for figure in figures} == json.loads(SNAPSHOT.read_text())
    assert {figure.name for figure in figures if not figure.met} == MISSED

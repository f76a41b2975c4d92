"""One call is charged once, whatever gets lost on its way: the quick form of `scripts/once`."""

from __future__ import annotations

from tests.assure.figures import table
from tests.e2e.market import MarketUnderTest
from tests.once.matrix import QUICK, run


def test_each_failure_charges_one_call_once(fragile: MarketUnderTest) -> None:
    parts = run(fragile, QUICK)
    print(table(parts))
    assert all(part.met for part in parts), table(parts)

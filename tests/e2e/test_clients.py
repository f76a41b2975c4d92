"""The quick form of `scripts/clients`: programs of their own, with clients as they are."""

from __future__ import annotations

from tests.assure.figures import table
from tests.clients.matrix import QUICK, run
from tests.e2e.market import MarketUnderTest


def test_clients_get_right_answers_true_costs_and_receipts_that_hold(market: MarketUnderTest) -> None:
    parts = run(market, QUICK, installed=True)
    assert all(part.met for part in parts), table(parts)

"""One market for the tests that only buy; crash tests start their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.market import MarketUnderTest

# Few, large settlements: what 200 jobs cost in transactions is one of the things measured here.
CALM = {
    "WATT_NODE_SETTLE_MIN_TOTAL_ATOMS": "1000000000",
    "WATT_NODE_SETTLE_MAX_AGE_MS": "45000",
    "WATT_NODE_SETTLE_EVERY_MS": "1000",
    "WATT_NODE_COLLECT_MIN_ATOMS": "0",
    # Renewed twice a minute, so that prices are asked for and offers renewed at the same time.
    "WATT_NODE_OFFER_VALID_SECONDS": "60",
}
# Settle soon: crash tests want money to move while things break.
EAGER = CALM | {"WATT_NODE_SETTLE_MAX_AGE_MS": "1500", "WATT_NODE_WORKER_LEASE_MS": "3000"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.path.name != "test_checker.py":
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MarketUnderTest]:
    running = MarketUnderTest(tmp_path_factory.mktemp("market"), CALM, tapped=True)
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MarketUnderTest]:
    """A market to break, and to see mend itself."""
    running = MarketUnderTest(tmp_path_factory.mktemp("fragile"), EAGER)
    running.start()
    yield running
    assert running.stop() == 0

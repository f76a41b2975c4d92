from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from marketplace.client.aio import AsyncWattline
from marketplace.client.bundle import Bundle
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.fakes import Clock, FakeNode
from tests.hardhat import chain, hardhat_node  # noqa: F401 - fixtures

BUYER = Signer(b"\x11" * 32)


@pytest.fixture
def buyer() -> Signer:
    return BUYER


@pytest.fixture
def market() -> FakeMarket:
    made = FakeMarket([FakeNode(1, price_per_job=10), FakeNode(2, price_per_job=20)], Clock())
    made.chain.accounts[BUYER.address] = 5_000_000
    return made


@pytest.fixture
async def watt(market: FakeMarket, buyer: Signer) -> AsyncIterator[AsyncWattline]:
    async with AsyncWattline(market.desk(buyer), buyer=buyer) as client:
        yield client


@pytest.fixture
async def bundle(watt: AsyncWattline) -> Bundle:
    return (await watt.chat("hi", model="tiny-chat", max_tokens=16)).bundle

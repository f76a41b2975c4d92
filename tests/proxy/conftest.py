from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from marketplace.client.aio import AsyncWattline
from marketplace.client.work import Done
from marketplace.protocol.signing import Signer
from marketplace.proxy.app import create_app
from marketplace.proxy.calls import Bounds, Proxy
from marketplace.proxy.edge import Edge
from tests.client.conftest import buyer, market, watt  # noqa: F401 - fixtures

URL = "http://127.0.0.1:8403"
HI: Any = [{"role": "user", "content": "hi"}]
BUYER = Signer(b"\x11" * 32)


@dataclass
class Served:
    """A proxy in this process, and what it told its command."""

    proxy: Proxy
    paid: list[Done] = field(default_factory=list)
    faults: list[Any] = field(default_factory=list)

    def http(self, app: Edge | None = None) -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(app or create_app(self.proxy), raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url=URL)

    def openai(self, retries: int = 0) -> AsyncOpenAI:
        return AsyncOpenAI(base_url=f"{URL}/v1", api_key="any", http_client=self.http(), max_retries=retries)


def serve(client: AsyncWattline, bounds: Bounds | None = None) -> Served:
    paid: list[Done] = []
    faults: list[Any] = []
    proxy = Proxy(client, bounds or Bounds(), on_paid=paid.append, on_faults=faults.extend)
    return Served(proxy, paid, faults)


@pytest.fixture
async def served(watt: AsyncWattline) -> AsyncIterator[Served]:  # noqa: F811 - the fixture above
    made = serve(watt)
    yield made
    await made.proxy.aclose()


@pytest.fixture
def openai(served: Served) -> AsyncOpenAI:
    return served.openai()


@pytest.fixture
def http(served: Served) -> httpx2.AsyncClient:
    return served.http()

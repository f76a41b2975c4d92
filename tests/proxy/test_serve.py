"""The proxy on a port of its own: it serves, and ends in order when it is told to."""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Any

import pytest
from openai import AsyncOpenAI

from marketplace.client.aio import AsyncWattline
from marketplace.protocol.errors import BadRequest
from marketplace.proxy.calls import Bounds, Proxy
from marketplace.proxy.serve import serve
from tests.client.fake_market import FakeMarket
from tests.proxy.conftest import HI


async def test_it_serves_until_it_is_told_to_stop_and_closes_its_client(
    watt: AsyncWattline, market: FakeMarket
) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def client() -> AsyncWattline:
        return watt

    async def proxy(opened: AsyncWattline) -> Proxy:
        return Proxy(opened, Bounds())

    serving = asyncio.ensure_future(
        serve(0, client, proxy, token=None, ready=lambda _, url: ready.set_result(url))
    )
    async with AsyncOpenAI(base_url=await ready, api_key="any", max_retries=0) as openai:
        stream = await openai.chat.completions.create(model="tiny-chat", messages=HI, stream=True)
        chunks: list[Any] = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "Hello, world"
    signal.raise_signal(signal.SIGTERM)
    await serving
    with pytest.raises(Exception, match="closed"):
        await watt.models()
    assert [voucher.amount_atoms for voucher in market.vouchers] == [12]


async def test_port_of_another_is_refused_with_the_remedy(watt: AsyncWattline) -> None:
    async def never(*_: object) -> Any:
        raise AssertionError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadRequest, match=str(port)) as caught:
            await serve(port, never, never, token=None, ready=print)
    assert "watt proxy --port" in str(caught.value.values["hint"])

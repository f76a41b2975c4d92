from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from marketplace.client import Wattline
from marketplace.client.aio import AsyncWattline
from marketplace.protocol.errors import ErrorCode, WattError
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket


@pytest.fixture
def watt(market: FakeMarket, buyer: Signer) -> Iterator[Wattline]:
    async def make() -> AsyncWattline:
        return AsyncWattline(market.desk(buyer), buyer=buyer)

    with Wattline(make) as client:
        yield client


def test_blocking_calls_return_what_async_calls_do(watt: Wattline) -> None:
    result = watt.chat("hi", model="tiny-chat", max_tokens=16)
    assert result.text == "Hello, world"
    assert watt.embed("a", model="tiny-chat").vectors == [[1.0, 2.0]]
    assert [m["id"] for m in watt.models()] == ["tiny-chat"]
    assert watt.receipt(result.receipt_id)["id"] == result.receipt_id
    assert len(watt.quote("hi", model="tiny-chat")) == 2


def test_blocking_stream_iterates_and_then_has_its_result(watt: Wattline) -> None:
    stream = watt.chat("hi", model="tiny-chat", stream=True)
    assert list(stream) == ["Hello", ", world"]
    assert stream.result.acknowledged


def test_closing_a_stream_early_leaves_the_client_usable(watt: Wattline) -> None:
    stream = watt.chat("hi", model="tiny-chat", stream=True)
    assert next(stream) == "Hello"
    stream.close()
    assert watt.chat("hi", model="tiny-chat").text == "Hello, world"


def test_errors_arrive_as_themselves(watt: Wattline) -> None:
    with pytest.raises(WattError) as caught:
        watt.chat("hi", model="none")
    assert caught.value.code is ErrorCode.UNKNOWN_MODEL


def test_threads_share_one_client_without_sharing_a_seq(watt: Wattline, market: FakeMarket) -> None:
    threads = [
        threading.Thread(target=watt.chat, args=("hi",), kwargs={"model": "tiny-chat"}) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(order.seq for order in market.orders) == list(range(1, 9))
    assert len(market.chain.held) == 1
    assert market.vouchers[-1].through_seq == 8


def test_every_async_call_has_a_blocking_twin() -> None:
    names = {n for n in vars(AsyncWattline) if not n.startswith("_")} - {"aclose"}
    assert names <= set(dir(Wattline))

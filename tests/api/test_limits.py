"""Calls a minute, by key and by address; and whose address is believed."""

from __future__ import annotations

import contextlib

import pytest
from limits.errors import StorageError

from marketplace.api.bodies import BodyLimits
from marketplace.api.edge import Edge
from marketplace.api.limits import RateLimits, Rates, caller_of, networks
from marketplace.protocol.errors import BadRequest, Broken
from marketplace.telemetry.metrics import Metrics

CHAT = "/v1/chat/completions"


def scope_of(client="203.0.113.7", *, path=CHAT, secret=None, forwarded=()):
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    if secret:
        headers.append((b"authorization", f"Bearer {secret}".encode()))
    return {"type": "http", "method": "GET", "path": path, "headers": headers, "client": (client, 1)}


async def taken(limits, **scope):
    """How many of ten calls pass."""
    passed = 0
    for _ in range(10):
        with contextlib.suppress(BadRequest):
            await limits.take(scope_of(**scope))
            passed += 1
    return passed


async def test_one_key_passes_so_often_a_minute_and_another_is_not_held_back():
    limits = RateLimits(Rates(per_key=3, per_address=0))
    assert [await taken(limits, secret=name) for name in ("one", "one", "two")] == [3, 0, 3]
    assert await taken(limits) == 10


async def test_one_address_passes_so_often_whatever_keys_it_uses():
    limits = RateLimits(Rates(per_key=0, per_address=4))
    assert [await taken(limits, secret=name) for name in ("one", "two")] == [4, 0]
    assert await taken(limits, client="203.0.113.8") == 4
    assert await taken(limits, client="2001:db8::1") == 4
    assert await taken(limits, client="2001:db8::2") == 0  # the same customer's network
    assert await taken(limits, path="/metrics") == 10


async def test_refusal_says_when_to_come_again():
    sent = []

    async def send(message):
        sent.append(message)

    async def never(*_):
        raise AssertionError("a refused call went on")

    rates = RateLimits(Rates(per_key=1))
    await rates.take(scope_of(secret="one"))
    edge = Edge(
        never,
        body_limits=BodyLimits(max_bytes=10),
        rate_limits=rates,
        metrics=Metrics(),
        charge=never,
    )
    await edge(scope_of(secret="one"), never, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert sent[0]["status"] == 429
    assert 1 <= int(headers["retry-after"]) <= 60
    assert headers["ratelimit-policy"] == '"key";q=1;w=60'
    assert headers["ratelimit"] == f'"key";r=0;t={headers["retry-after"]}'
    assert b'"code":"rate_limited"' in sent[1]["body"]
    assert b'"charged":false' in sent[1]["body"]


async def test_store_that_does_not_answer_refuses_nobody(monkeypatch):
    limits = RateLimits(Rates(per_key=1, per_address=1))

    asked = []

    async def broken(*who):
        asked.append(who)
        raise StorageError(ConnectionError("no redis"))

    monkeypatch.setattr(limits._window, "hit", broken)
    assert await taken(limits, secret="one") == 10
    assert len(asked) <= 2  # not asked again by each call, which would wait for it
    limits._paused_until = 0
    monkeypatch.undo()
    assert await taken(limits, secret="one") == 1


@pytest.mark.parametrize("url", ["nowhere://", "redis+unknown://x"])
def test_store_that_nobody_knows_is_refused_at_the_start(url):
    with pytest.raises(Broken, match="WATT_RATE_STORE_URL"):
        RateLimits(Rates(store_url=url))


@pytest.mark.parametrize(
    ("client", "forwarded", "proxies", "who"),
    [
        ("203.0.113.7", ["198.51.100.1"], "", "203.0.113.7"),
        ("10.0.0.1", ["198.51.100.1"], "10.0.0.0/8", "198.51.100.1"),
        # What a caller writes itself stands further left than what our proxies add.
        ("10.0.0.1", ["1.2.3.4, 198.51.100.1, 10.0.0.2"], "10.0.0.0/8", "198.51.100.1"),
        ("10.0.0.1", ["1.2.3.4", "198.51.100.1"], "10.0.0.0/8", "198.51.100.1"),
        ("203.0.113.7", ["198.51.100.1"], "10.0.0.0/8", "203.0.113.7"),
        ("10.0.0.1", [], "10.0.0.0/8", "10.0.0.1"),
        ("10.0.0.1", ["rubbish"], "10.0.0.0/8", "unknown"),
        ("2001:db8:0:1::5", [], "", "2001:db8:0:1::/64"),
    ],
)
def test_forwarded_address_is_believed_of_named_proxies_only(client, forwarded, proxies, who):
    assert caller_of(scope_of(client, forwarded=forwarded), networks(proxies)) == who


def test_mistyped_proxies_are_refused():
    with pytest.raises(ValueError, match="does not appear"):
        networks("10.0.0.0/8, everybody")

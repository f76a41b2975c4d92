"""Hints from the infer processes to the daemon: an order hash, so that it looks in the ledger now.

A hint may be lost; the daemon looks by itself now and then. Without Valkey or Redis there are none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import redis
import redis.asyncio

from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

_RETRY_SECONDS: Final = 1.0
_SCHEMES: Final = ("redis://", "rediss://", "redis+socket://", "unix://")

log = get_logger(__name__)


def can_hint(broker_url: str) -> bool:
    """Whether this broker carries hints."""
    return broker_url.startswith(_SCHEMES)


def channel(queue: str) -> str:
    """Channel of a node."""
    return f"{queue}.hints"


def publisher(broker_url: str, queue: str) -> Callable[[bytes], None]:
    """Function that hints at an order; never fails, at worst says nothing."""
    if not can_hint(broker_url):
        return lambda _order_hash: None
    client = redis.Redis.from_url(broker_url, socket_timeout=1, socket_connect_timeout=1)
    name = channel(queue)

    def publish(order_hash: bytes) -> None:
        try:
            client.publish(name, to_hex(order_hash))
        except redis.RedisError as error:
            log.debug(Log.LOOP_FAILED, loop="hint", reason=type(error).__name__)

    return publish


async def listen(broker_url: str, queue: str, wake: Callable[[bytes], None]) -> None:
    """Calls `wake` for every hint, for ever; a broker that is away is tried again."""
    if not can_hint(broker_url):
        return
    while True:
        try:
            await _listen_once(broker_url, queue, wake)
        except (redis.RedisError, OSError) as error:
            log.debug(Log.LOOP_FAILED, loop="hints", reason=type(error).__name__)
        await asyncio.sleep(_RETRY_SECONDS)


async def _listen_once(broker_url: str, queue: str, wake: Callable[[bytes], None]) -> None:
    async with redis.asyncio.Redis.from_url(broker_url) as client, client.pubsub() as subscription:
        await subscription.subscribe(channel(queue))
        async for message in subscription.listen():
            if message["type"] == "message":
                try:
                    wake(from_hex(bytes(message["data"]).decode(), 32))
                except ValueError:
                    log.debug(Log.LOOP_FAILED, loop="hints", reason="unreadable")

"""Hints from the infer processes to the daemon: order hashes, so that it looks in the ledger now.

A hint may be lost; the daemon looks by itself now and then. Without Valkey or Redis there are none.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Final

import redis
import redis.asyncio

from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

_RETRY_SECONDS: Final = 1.0
_HASH_BYTES: Final = 32
_SCHEMES: Final = ("redis://", "rediss://", "redis+socket://", "unix://")

log = get_logger(__name__)


def can_hint(broker_url: str) -> bool:
    """Whether this broker carries hints."""
    return broker_url.startswith(_SCHEMES)


def channel(queue: str) -> str:
    """Channel of a node."""
    return f"{queue}.hints"


def cancel_channel(queue: str) -> str:
    """Channel on which the infer processes of a node hear of orders to cut short."""
    return f"{queue}.cancels"


class CancelListener:
    """Passes on orders to cut short, from a thread; word that gets lost comes with the next lease."""

    def __init__(self, broker_url: str, queue: str, cancel: Callable[[bytes], None]) -> None:
        self._broker_url = broker_url
        self._name = cancel_channel(queue)
        self._cancel = cancel
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Starts to listen, where the broker carries hints."""
        if can_hint(self._broker_url):
            self._thread = threading.Thread(target=self._run, name="cancels", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stops. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except (redis.RedisError, OSError) as error:
                log.debug(Log.LOOP_FAILED, loop="cancels", reason=type(error).__name__)
                self._stop.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        client = redis.Redis.from_url(self._broker_url)
        with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            subscription.subscribe(self._name)
            while not self._stop.is_set():
                message = subscription.get_message(timeout=_RETRY_SECONDS)
                if message is not None:
                    for order_hash in _hashes(bytes(message["data"])):
                        self._cancel(order_hash)


def _hashes(told: bytes) -> list[bytes]:
    whole = len(told) - len(told) % _HASH_BYTES
    return [told[start : start + _HASH_BYTES] for start in range(0, whole, _HASH_BYTES)]


def publisher(broker_url: str, queue: str, named: str = "") -> Callable[[Sequence[bytes]], None]:
    """Function that hints at orders, on the channel `named`; never fails, at worst says nothing."""
    if not can_hint(broker_url):
        return lambda _hashes: None
    client = redis.Redis.from_url(broker_url, socket_timeout=1, socket_connect_timeout=1)
    name = named or channel(queue)

    def publish(hashes: Sequence[bytes]) -> None:
        try:
            client.publish(name, b"".join(hashes))
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
                for order_hash in _hashes(bytes(message["data"])):
                    wake(order_hash)

"""How often one key and one address may call: counted in memory, or in Redis where gateways share a limit."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError, StorageError
from limits.storage import storage_from_string
from starlette.types import Scope

from marketplace.protocol import ids
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

Network = IPv4Network | IPv6Network
# Whoever watches the gateway must see it also while somebody floods it.
_FREE: Final = frozenset({"/livez", "/readyz", "/metrics"})
_WINDOW_SECONDS: Final = 60
_STORE_SECONDS: Final = 0.25
_PAUSE_SECONDS: Final = 5  # for which a store that failed is not asked: no call shall wait for it
_SITE_BITS: Final = 64  # one customer's IPv6 network
_STORES: Final = "Set it to memory://, redis://… or valkey://…"
log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Calls a minute; 0: as many as they like. `proxies` are believed what they say of a caller's address."""

    per_key: int = 12_000
    per_address: int = 60_000
    store_url: str = "memory://"
    proxies: Sequence[Network] = ()


class RateLimits:
    """Counts calls. Where the store does not answer, nobody is refused."""

    def __init__(self, rates: Rates) -> None:
        self._proxies, self._paused_until = rates.proxies, 0.0
        self._items = {
            name: RateLimitItemPerMinute(calls)
            for name, calls in (("address", rates.per_address), ("key", rates.per_key))
            if calls
        }
        self._window = SlidingWindowCounterRateLimiter(_store(rates.store_url))

    async def take(self, scope: Scope) -> None:
        """Counts one call. Raises `BadRequest` with when to come again."""
        if scope["path"] in _FREE or time.monotonic() < self._paused_until:
            return
        for name, item in self._items.items():
            who = caller_of(scope, self._proxies) if name == "address" else _key_of(scope)
            if who is not None:
                await self._take(name, item, who)

    async def _take(self, name: str, item: RateLimitItem, who: str) -> None:
        try:
            if await self._window.hit(item, name, who):
                return
            reset, left = await self._window.get_window_stats(item, name, who)
        except StorageError as error:
            log.warning(Log.RATE_STORE_FAILED, problem=str(error.storage_error))
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            return
        seconds = max(1, math.ceil(reset - time.time()))
        raise BadRequest(
            ErrorCode.RATE_LIMITED,
            f"at most {item.amount} calls a minute by one {name}",
            retry_after_seconds=seconds,
            headers={
                "ratelimit-policy": f'"{name}";q={item.amount};w={_WINDOW_SECONDS}',
                "ratelimit": f'"{name}";r={left};t={seconds}',
            },
        )


def networks(text: str) -> tuple[Network, ...]:
    """Networks between commas, as 10.0.0.0/8. Raises `ValueError`."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def caller_of(scope: Scope, proxies: Sequence[Network]) -> str:
    """Whose call it is: the last address in its way that is not one of our proxies; IPv6 by its network."""
    peer = scope["client"][0] if scope.get("client") else ""
    said = [
        part.strip()
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
        for part in value.decode("latin-1").split(",")
    ]
    while said and _is_in(peer, proxies):
        peer = said.pop()
    return _site(peer)


def _key_of(scope: Scope) -> str | None:
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    kind, _, secret = given.decode("latin-1").partition(" ")
    return ids.api_key_hash(secret.strip()).hex() if kind.lower() == "bearer" and secret.strip() else None


def _is_in(address: str, proxies: Sequence[Network]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return any(found in network for network in proxies)


def _site(address: str) -> str:
    try:
        found = ip_address(address)
    except ValueError:
        return "unknown"
    return str(ip_network((found, _SITE_BITS), strict=False)) if found.version == 6 else str(found)


def _store(url: str) -> Storage:
    # Valkey speaks Redis.
    plain = url.replace("valkey", "redis", 1) if url.startswith("valkey") else url
    try:
        found = storage_from_string(
            f"async+{plain}",
            wrap_exceptions=True,
            implementation="redispy",
            socket_timeout=_STORE_SECONDS,
            socket_connect_timeout=_STORE_SECONDS,
        )
    except ConfigurationError as error:
        raise Broken(ErrorCode.INTERNAL, f"WATT_RATE_STORE_URL: {error}", hint=_STORES) from error
    if not isinstance(found, Storage):
        raise Broken(ErrorCode.INTERNAL, "WATT_RATE_STORE_URL is of no store", hint=_STORES)
    return found

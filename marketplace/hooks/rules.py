"""Where a webhook may point, when it is tried again, and what a message says. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.webhooks import Event

MAX_URL: Final = 2_048
MAX_WEBHOOKS: Final = 10
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
# Pauses after the first, second, … failure; together a little under 24 hours.
RETRY_MS: Final = (
    5_000,
    30_000,
    2 * _MINUTE_MS,
    10 * _MINUTE_MS,
    30 * _MINUTE_MS,
    _HOUR_MS,
    2 * _HOUR_MS,
    4 * _HOUR_MS,
    7 * _HOUR_MS,
    9 * _HOUR_MS,
)
GONE: Final = 410
_PORTS: Final = {"http": 80, "https": 443}
# Forms of IPv6 that carry an IPv4 address to somewhere the address itself does not show.
_TUNNELS: Final = tuple(
    map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a webhook points, read from its URL; `host` is in ASCII."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def target(url: str) -> Target:
    """Reads a webhook's URL. Raises `BadRequest`."""
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise _refused(f"a URL has at most {MAX_URL} printable ASCII letters and no space")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(f"the URL cannot be read: {error}") from error
    if parts.scheme not in _PORTS:
        raise _refused("only http:// and https:// are sent to")
    if parts.username is not None or parts.password is not None:
        raise _refused("leave user and password out of the URL; every message is signed")
    if not parts.hostname:
        raise _refused("the URL names no host")
    query = f"?{parts.query}" if parts.query else ""
    return Target(
        scheme=parts.scheme,
        host=parts.hostname,
        port=_PORTS[parts.scheme] if port is None else port,
        path=(parts.path or "/") + query,
    )


def check_addresses(addresses: Sequence[str], *, allow_loopback: bool) -> str:
    """The address to connect to, once all that a name resolves to are fit.

    Raises:
        BadRequest: none, or one of them is not reachable from everywhere: a name that is half inside is
            refused as a whole, for nobody knows which half is next.
    """
    if not addresses:
        raise _refused("the name resolves to no address")
    for text in addresses:
        address = _plain(ipaddress.ip_address(text.partition("%")[0]))
        if address.is_loopback and allow_loopback:
            continue
        if not _is_public(address):
            raise _refused("the name resolves to an address that is not public")
    return addresses[0]


def events_of(names: Sequence[str] | None) -> tuple[Event, ...]:
    """Events asked for, each once; all of them where none is named. Raises `BadRequest`."""
    if not names:
        return tuple(Event)
    known = set(Event.__members__.values())
    unknown = [name for name in names if name not in known]
    if unknown:
        detail = f"{unknown[0][:60]!r} is no event; there are {', '.join(Event)}"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="events")
    return tuple(event for event in Event if event in names)


def retry_at_ms(attempts: int, now_ms: int) -> int | None:
    """When a message is tried again after so many failures; None when that was the last."""
    return now_ms + RETRY_MS[attempts - 1] if attempts <= len(RETRY_MS) else None


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and any(address in net for net in _TUNNELS):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _refused(detail: str) -> BadRequest:
    return BadRequest(ErrorCode.WEBHOOK_REFUSED, detail, param="url")

"""Offers an agent was quoted, kept until it takes one. An offer is good for one purchase."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

import anyio

from marketplace.client.quotes import Quote
from marketplace.mcp.shop import Bought, Wish
from marketplace.protocol.errors import BadRequest, ErrorCode

_MOST_BYTES: Final = 16 * 1024 * 1024
_MOST_OFFERS: Final = 4096


@dataclass(slots=True, kw_only=True)
class Kept:
    """One quoted offer and what became of it; one `owner` may take it, one call at a time.

    `doubtful` names the job of an order whose fate is not known here; "" where even its name is not.
    """

    owner: str
    wish: Wish
    quote: Quote
    size: int
    bought: Bought | None = None
    doubtful: str | None = None
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Shelf:
    """The newest offers, in memory: what is lost is quoted again, and costs nothing."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    def put(self, owner: str, wish: Wish, quotes: list[Quote]) -> list[str]:
        """Keeps offers for one wish; gives their ids."""
        # They share the wish, so each counts for its part of it.
        size = len(repr(wish.fields)) // max(1, len(quotes)) + 1024
        names = [f"off_{secrets.token_hex(8)}" for _ in quotes]
        for name, quote in zip(names, quotes, strict=True):
            self._kept[name] = Kept(owner=owner, wish=wish, quote=quote, size=size)
            self._bytes += size
        while self._bytes > _MOST_BYTES or len(self._kept) > _MOST_OFFERS:
            self._bytes -= self._kept.popitem(last=False)[1].size
        return names

    def take(self, owner: str, name: str, now_ms: int) -> Kept:
        """An offer by its id.

        Raises:
            BadRequest: it was never quoted to this owner, is long ago, or has ended.
        """
        kept = self._kept.get(name)
        hint = "Ask for a fresh one: quote()."
        if kept is None or kept.owner != owner:
            raise BadRequest(ErrorCode.OFFER_UNKNOWN, f"no offer {name[:40]!r} is kept for you", hint=hint)
        if kept.bought is None and kept.quote.offer.valid_until * 1000 <= now_ms:
            raise BadRequest(ErrorCode.OFFER_EXPIRED, f"the offer {name} has ended", hint=hint)
        return kept

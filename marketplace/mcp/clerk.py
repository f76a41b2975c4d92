"""Who serves a caller: a shop, the user's limits, and the offers kept for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from marketplace.mcp.limits import Limits
from marketplace.mcp.shelf import Shelf
from marketplace.mcp.shop import Shop


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What is known of who calls: HTTP headers, lower case, and address; nothing over stdio."""

    headers: Mapping[str, str] = field(default_factory=dict)
    address: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """All that one call of a tool works with; `owner` tells callers apart on a shared shelf."""

    shop: Shop
    limits: Limits
    shelf: Shelf
    owner: str


class Clerk(Protocol):
    """Serves callers, one visit a call."""

    async def serve(self, caller: Caller, /) -> Visit:
        """What this caller's calls work with. May raise `WattError`."""

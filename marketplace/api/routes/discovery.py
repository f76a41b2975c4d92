"""What can be bought here without a key, in the shape of x402's discovery list (Bazaar)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request

from marketplace.api import x402
from marketplace.flow import Market
from marketplace.store import offers
from marketplace.store.offers import Listing

_ROUTES: Final = {"chat": "/v1/chat/completions", "embed": "/v1/embeddings"}


def routes(market: Market) -> APIRouter:
    """The one route that crawlers of x402 resources ask for."""
    router = APIRouter(tags=["x402"])

    @router.get("/discovery/resources")
    async def resources(
        request: Request,
        kind: Annotated[str | None, Query(alias="type")] = None,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        offset: Annotated[int, Query(ge=0, le=1 << 31)] = 0,
    ) -> dict[str, Any]:
        """Lists models that can be paid for per call; a call without a key answers with its price."""
        found = [] if market.receivers is None or kind not in (None, "http") else await _models(market)
        items = [_item(market, request, listing) for listing in found[offset : offset + limit]]
        return {
            "x402Version": x402.VERSION,
            "items": items,
            "pagination": {"limit": limit, "offset": offset, "total": len(found)},
        }

    return router


async def _models(market: Market) -> list[Listing]:
    """One connected listing a model name, the first by node."""
    found: dict[str, Listing] = {}
    for listing in await market.read(offers.listings):
        if listing.connected:
            found.setdefault(listing.model_name, listing)
    return [found[name] for name in sorted(found)]


def _item(market: Market, request: Request, listing: Listing) -> dict[str, Any]:
    receivers = market.receivers
    # Each call has an address of its own, so amount and payTo are in the answer to the call and not here.
    accepts = [x402.terms_of(receivers.token, receivers.window_seconds)] if receivers else []
    path = _ROUTES.get(listing.task, f"/v1/{listing.task}")
    return {
        "resource": str(request.base_url).rstrip("/") + path,
        "type": "http",
        "x402Version": x402.VERSION,
        "accepts": accepts,
        "lastUpdated": datetime.fromtimestamp(market.clock() / 1000, UTC).isoformat(),
        "description": f"{listing.task} by {listing.model_name}",
        "mimeType": "application/json",
        "serviceName": "Wattline",
        "tags": ["inference", listing.task],
        "metadata": {"model": listing.model_name, "model_id": listing.model_id, "method": "POST"},
    }

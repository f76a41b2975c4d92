"""The gateway itself: nodes, chain, health, metrics, routes in plain HTML."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from marketplace.api import views
from marketplace.flow import Market
from marketplace.store import events, offers
from marketplace.store.tables import Tx
from marketplace.telemetry.metrics import CONTENT_TYPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must be well for the gateway to serve."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the process around the API knows: checks (may block, run in a thread) and follower lag."""

    checks: Callable[[], list[Check]]
    lag_blocks: Callable[[], int | None]


def routes(market: Market, health: Health) -> APIRouter:
    """Routes about the gateway."""
    router = APIRouter(tags=["gateway"])

    @router.get("/v1/nodes")
    async def nodes() -> dict[str, Any]:
        """Lists the nodes."""

        def load(tx: Tx) -> list[dict[str, Any]]:
            return [views.node_view(tx, row) for row in offers.nodes(tx)]

        return {"object": "list", "data": await market.read(load), "has_more": False}

    @router.get("/v1/chain")
    async def chain() -> dict[str, Any]:
        """Names the contracts this market lives on, and how far it has read."""
        cursor = await market.read(events.cursor)
        head = (
            {"number": cursor.number, "hash": cursor.hash, "timestamp": cursor.timestamp} if cursor else None
        )
        gateway = {"gateway_signer": market.vault.identity.address, "lag_blocks": health.lag_blocks()}
        return market.deployment.to_json() | {"head": head} | gateway

    @router.get("/livez")
    async def live() -> dict[str, bool]:
        """Answers while the process runs."""
        return {"ok": True}

    @router.get("/readyz")
    async def ready() -> Response:
        """Answers 200 once everything this gateway needs is well."""
        checks = [await _database(market), *await market.off_loop(health.checks)]
        ok = all(check.ok for check in checks)
        named = {check.name: {"ok": check.ok, "detail": check.detail} for check in checks}
        return JSONResponse({"ok": ok, "checks": named}, 200 if ok else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Metrics in the Prometheus text format."""
        return Response(market.metrics.render(), media_type=CONTENT_TYPE)

    @router.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(_docs(request.app.openapi()))

    return router


async def _database(market: Market) -> Check:
    await market.read(events.cursor)
    return Check(name="db", ok=True)


def _docs(schema: dict[str, Any]) -> str:
    rows = [
        f"<tr><td><code>{method.upper()}</code><td><code>{html.escape(path)}</code>"
        f"<td>{html.escape(route.get('description', ''))}"
        for path, methods in schema["paths"].items()
        for method, route in methods.items()
    ]
    # No script and no font from elsewhere: this page must work offline.
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Wattline gateway</title>"
        "<h1>Wattline gateway</h1><p>Schema: <a href=/openapi.json>/openapi.json</a>"
        f"<table>{''.join(rows)}</table></html>"
    )

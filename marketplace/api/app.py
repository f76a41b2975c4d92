"""Puts the HTTP app together; everything it needs arrives as an argument."""

from __future__ import annotations

from fastapi import FastAPI

from marketplace.api import link, problems
from marketplace.api.edge import Edge
from marketplace.api.routes import account, discovery, jobs, system, work
from marketplace.api.routes.system import Health
from marketplace.flow import Market


def create_app(market: Market, health: Health, *, max_body_bytes: int) -> FastAPI:
    """The gateway's app over one market."""
    app = FastAPI(
        title="Wattline",
        description="The compute market agents pay for themselves.",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    for router in (
        work.routes(market),
        jobs.routes(market),
        account.routes(market),
        discovery.routes(market),
        system.routes(market, health),
        link.routes(market),
    ):
        app.include_router(router)
    app.add_middleware(Edge, max_body_bytes=max_body_bytes, metrics=market.metrics)
    return app

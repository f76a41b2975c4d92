"""Puts the HTTP app together; everything it needs arrives as an argument."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI

from marketplace.api import link, problems
from marketplace.api.edge import Edge
from marketplace.api.routes import account, batches, files, jobs, system, work
from marketplace.api.routes.system import Health
from marketplace.batches.desk import Desk
from marketplace.batches.step import Limits
from marketplace.flow import Market

_FORM_BYTES: Final = 64 << 10


def create_app(
    market: Market, health: Health, *, max_body_bytes: int, limits: Limits | None = None
) -> FastAPI:
    """The gateway's app over one market."""
    desk = Desk(market, limits or Limits(most_line_bytes=max_body_bytes))
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
        files.routes(market, desk),
        batches.routes(market, desk),
        account.routes(market),
        system.routes(market, health),
        link.routes(market),
    ):
        app.include_router(router)
    app.add_middleware(
        Edge,
        max_body_bytes=max_body_bytes,
        max_upload_bytes=desk.limits.most_file_bytes + _FORM_BYTES,
        metrics=market.metrics,
    )
    return app

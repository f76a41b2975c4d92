"""Puts the HTTP app together; everything it needs arrives as an argument."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any, Final

from fastapi import FastAPI

from marketplace.api import link, problems
from marketplace.api.bodies import BodyLimits
from marketplace.api.charges import charge_now
from marketplace.api.edge import Edge
from marketplace.api.limits import RateLimits, Rates
from marketplace.api.routes import (
    account,
    batches,
    completions,
    discovery,
    docs,
    files,
    jobs,
    keys,
    responses,
    statements,
    system,
    unsupported,
    webhooks,
    work,
)
from marketplace.api.routes.system import Health
from marketplace.batches.desk import Desk
from marketplace.batches.step import Limits
from marketplace.flow import Market

_FORM_BYTES: Final = 64 << 10


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The page that describes the API, with our errors on it."""
        page = super().openapi()
        page["components"]["schemas"][problems.NAME] = problems.SCHEMA
        return page


def create_app(
    market: Market,
    health: Health,
    *,
    max_body_bytes: int,
    body_limits: BodyLimits | None = None,
    rates: Rates | None = None,
    limits: Limits | None = None,
) -> FastAPI:
    """The gateway's app over one market; `max_body_bytes` alone means the usual limits of bodies."""
    desk = Desk(market, limits or Limits(most_line_bytes=max_body_bytes))
    most_upload_bytes = desk.limits.most_file_bytes + _FORM_BYTES
    app = _App(
        title="Wattline",
        description="The compute market agents pay for themselves.",
        version="0.1.0",
        docs_url=None,
        redoc_url=None,
        responses=problems.RESPONSES,
    )
    charge = functools.partial(charge_now, market)
    problems.install(app, charge)
    for router in (
        work.routes(market),
        completions.routes(market),
        responses.routes(market),
        jobs.routes(market),
        keys.routes(market),
        files.routes(market, desk),
        batches.routes(market, desk),
        account.routes(market),
        statements.routes(market),
        webhooks.routes(market),
        docs.routes(market),
        discovery.routes(market),
        system.routes(market, health),
        link.routes(market),
        unsupported.routes(),
    ):
        app.include_router(router)
    app.add_middleware(
        Edge,
        body_limits=replace(
            body_limits or BodyLimits(max_bytes=max_body_bytes), max_upload_bytes=most_upload_bytes
        ),
        rate_limits=RateLimits(rates or Rates()),
        metrics=market.metrics,
        charge=charge,
    )
    return app

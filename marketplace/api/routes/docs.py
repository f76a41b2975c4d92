"""Pages for people and models that read: error codes, and what is on offer, as Markdown."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from marketplace.explain import errors, overview
from marketplace.explain.overview import OnOffer
from marketplace.flow import Market
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.money import format_atoms
from marketplace.store import offers
from marketplace.store.offers import Listing

_MARKDOWN = "text/markdown; charset=utf-8"


def routes(market: Market) -> APIRouter:
    """Routes that answer with prose."""
    router = APIRouter(tags=["gateway"], default_response_class=PlainTextResponse)

    @router.get("/docs/errors")
    async def error_list() -> Response:
        """Lists the error codes, in Markdown."""
        return Response(overview.error_list(), media_type=_MARKDOWN)

    @router.get("/docs/errors/{code}")
    async def error_page(code: str) -> Response:
        """Explains an error code, in Markdown."""
        name = code.removesuffix(".md")
        if name not in ErrorCode.__members__.values():
            raise BadRequest(ErrorCode.NOT_FOUND, f"{name[:60]!r} is no error code; see /docs/errors")
        return Response(errors.page(ErrorCode(name)), media_type=_MARKDOWN)

    @router.get("/llms.txt")
    async def llms() -> Response:
        """Says what this gateway is, how to call it and what is on offer, for a model to read."""
        return Response(
            overview.short(await _on_offer(market), market.deployment.token_symbol), media_type=_MARKDOWN
        )

    @router.get("/llms-full.txt")
    async def llms_full() -> Response:
        """The same with every page it refers to."""
        return Response(
            overview.full(await _on_offer(market), market.deployment.token_symbol), media_type=_MARKDOWN
        )

    return router


async def _on_offer(market: Market) -> list[OnOffer]:
    found = await market.read(offers.listings)
    named: dict[str, list[Listing]] = {}
    for listing in found:
        if listing.connected:
            named.setdefault(listing.model_name, []).append(listing)
    return [_summary(name, rows, market.deployment.token_decimals) for name, rows in sorted(named.items())]


def _summary(name: str, rows: list[Listing], decimals: int) -> OnOffer:
    return OnOffer(
        name=name,
        tasks=tuple(sorted({row.task for row in rows})),
        context_tokens=min(row.context_tokens for row in rows),
        per_job=format_atoms(min(row.offer.price_per_job_atoms for row in rows), decimals),
        in_per_million=format_atoms(min(row.offer.price_in_per_million_atoms for row in rows), decimals),
        out_per_million=format_atoms(min(row.offer.price_out_per_million_atoms for row in rows), decimals),
        nodes=len({row.node_id for row in rows}),
    )

"""What the caller was billed and paid: receipts and payments by page, and all of them as a file."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from marketplace.api import export
from marketplace.api.auth import caller
from marketplace.api.export import Format, Kind, Wish
from marketplace.api.routes.jobs import page
from marketplace.flow import Market
from marketplace.store import statements

_RECEIPT: Final = "^rcpt_[0-9a-f]{32}$"
_PAYMENT: Final = "^pay_[0-9]{1,9}_[0-9]{1,9}_[0-9]{1,9}$"
_MOST: Final = (1 << 62) - 1


def routes(market: Market) -> APIRouter:
    """Routes about what was billed and paid."""
    router = APIRouter(prefix="/v1", tags=["money"])

    @router.get("/receipts")
    async def receipts(
        request: Request,
        limit: int = Query(default=20, ge=1, le=100),
        after: str | None = Query(default=None, pattern=_RECEIPT),
    ) -> dict[str, Any]:
        """Lists the caller's receipts, newest first."""
        key = await caller(market, request)
        rows = await market.read(lambda tx: statements.receipts_of_key(tx, key, limit=limit + 1, after=after))
        data = [export.receipt_row(row, market.deployment) for row in rows[:limit]]
        return page(data, "receipt_id", has_more=len(rows) > limit)

    @router.get("/payments")
    async def payments(
        request: Request,
        limit: int = Query(default=20, ge=1, le=100),
        after: str | None = Query(default=None, pattern=_PAYMENT),
    ) -> dict[str, Any]:
        """Lists money that moved into and out of the caller's sessions on the chain, newest first."""
        key = await caller(market, request)
        before = _place(after) if after else None
        found, more = await market.read(
            lambda tx: statements.payments_of_key(tx, key, limit=limit, before=before)
        )
        return page(
            [export.payment_row(row, market.deployment) for row in found], "payment_id", has_more=more
        )

    @router.get("/export")
    async def exported(
        request: Request,
        kind: Kind,
        format: Format = Format.JSON,
        since_ms: int = Query(default=0, ge=0, le=_MOST, description="Receipts that came since then."),
        since_block: int = Query(default=0, ge=0, le=_MOST, description="Payments from this block on."),
    ) -> Response:
        """Streams every receipt or payment of the caller, session by session."""
        wish = Wish(
            key=await caller(market, request),
            kind=kind,
            format=format,
            since_ms=since_ms,
            since_block=since_block,
        )
        headers = {"content-disposition": f'attachment; filename="wattline-{kind}.{format}"'}
        lines = export.written(market, wish)
        return StreamingResponse(lines, media_type=export.MEDIA_TYPES[format], headers=headers)

    return router


def _place(payment_id: str) -> tuple[int, int, int]:
    block, log, part = payment_id.removeprefix("pay_").split("_")
    return int(block), int(log), int(part)

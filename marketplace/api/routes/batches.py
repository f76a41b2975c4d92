"""Batches: a file of calls that run one by one, each at most once, and are paid like any other."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from marketplace.api.auth import bearer
from marketplace.api.once import once_of
from marketplace.api.retention import ExpiresAfter, file_keep_ms
from marketplace.api.routes.files import FILE_ID
from marketplace.api.routes.jobs import page
from marketplace.api.routes.work import trace_of
from marketplace.batches import step
from marketplace.batches.desk import Desk
from marketplace.batches.step import Wish
from marketplace.chain.deployment import Deployment
from marketplace.flow import Market
from marketplace.openai import money
from marketplace.openai.batches import CALLS, OVER, BatchStatus
from marketplace.openai.requests import PLAIN
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.money import format_atoms
from marketplace.store import batches, files
from marketplace.store.batch_tables import BatchRow
from marketplace.store.tables import Tx

_MOST_LABELS: Final = 16
_SHOWN_ERRORS: Final = 20
BATCH_ID: Final = "^batch_[a-z2-7]{1,40}$"


class BatchCall(BaseModel):
    """Body of `POST /v1/batches`."""

    model_config = ConfigDict(extra="allow")

    input_file_id: str = Field(pattern=FILE_ID)
    endpoint: str = Field(max_length=64, pattern=PLAIN)
    completion_window: Literal["24h"]
    metadata: dict[str, str] | None = Field(
        default=None, max_length=_MOST_LABELS, description="Given back; `max_cost` in it is read, too."
    )
    max_cost: str | float | None = Field(
        default=None, description="Most all lines may cost together, in token units."
    )
    output_expires_after: ExpiresAfter | None = Field(
        default=None, description="How long the results are kept; 30 days where nothing is said."
    )


def routes(market: Market, desk: Desk) -> APIRouter:
    """Routes about batches."""
    router = APIRouter(tags=["batches"])

    @router.post("/v1/batches")
    async def create(call: BatchCall, request: Request) -> dict[str, Any]:
        """Runs a file's lines, if the key can pay all of them; `ceiling` is the most they can cost."""
        batch = await desk.take_batch(await _wish(market, call, request))
        return await market.read(lambda tx: batch_view(tx, batch, market.deployment))

    @router.get("/v1/batches")
    async def listed(
        request: Request,
        limit: int = Query(default=20, ge=1, le=100),
        after: str | None = Query(default=None, pattern=BATCH_ID),
    ) -> dict[str, Any]:
        """Lists the caller's batches, newest first."""
        key = (await bearer(market, request)).address

        def load(tx: Tx) -> dict[str, Any]:
            rows = batches.of_key(tx, key, limit + 1, after)
            data = [batch_view(tx, row, market.deployment) for row in rows[:limit]]
            return page(data, "id", has_more=len(rows) > limit)

        return await market.read(load)

    @router.get("/v1/batches/{batch_id}")
    async def batch(batch_id: str, request: Request) -> dict[str, Any]:
        """Shows a batch: how far it is, and what it has cost."""
        key = (await bearer(market, request)).address
        return await market.read(
            lambda tx: batch_view(tx, step.own_batch(tx, batch_id, key), market.deployment)
        )

    @router.post("/v1/batches/{batch_id}/cancel")
    async def cancel(batch_id: str, request: Request) -> dict[str, Any]:
        """Places no more of its lines; those that run end with what they have, and only that is paid."""
        key, now = (await bearer(market, request)).address, market.clock()
        row = await market.write(lambda tx: step.cancel(tx, batch_id, key, now))
        return await market.read(lambda tx: batch_view(tx, row, market.deployment))

    return router


def batch_view(tx: Tx, row: BatchRow, deployment: Deployment) -> dict[str, Any]:
    """A batch in OpenAI's shape; `usage` has what it cost, `ceiling` what it can cost at most."""
    is_over, decimals = row.status in OVER, deployment.token_decimals
    return {
        "id": row.batch_id,
        "object": "batch",
        "endpoint": row.endpoint,
        "errors": _errors(tx, row) if row.status == BatchStatus.FAILED else None,
        "input_file_id": row.input_file_id,
        "completion_window": "24h",
        "status": row.status,
        "output_file_id": row.output_file_id if is_over and row.completed else None,
        "error_file_id": row.error_file_id if is_over and row.failed else None,
        "request_counts": {"total": row.total, "completed": row.completed, "failed": row.failed},
        "metadata": json.loads(row.labels) or None,
        **_times(row),
        "usage": _usage(row, deployment, is_over=is_over),
        "ceiling": format_atoms(row.ceiling_atoms, decimals),
        "ceiling_atoms": str(row.ceiling_atoms),
        "max_cost_atoms": None if row.max_cost_atoms is None else str(row.max_cost_atoms),
        "waiting_for": row.problem or None,
        "trace_id": row.trace_id,
    }


def _times(row: BatchRow) -> dict[str, int | None]:
    ends = {
        f"{status}_at": row.ended_at_ms if row.status == status else None
        for status in (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.EXPIRED, BatchStatus.CANCELLED)
    }
    times = ends | {
        "created_at": row.created_at_ms,
        "in_progress_at": row.began_at_ms,
        "expires_at": row.expires_at_ms,
        "finalizing_at": row.finalizing_at_ms,
        "cancelling_at": row.cancelling_at_ms,
    }
    return {name: None if at_ms is None else at_ms // 1000 for name, at_ms in times.items()}


def _usage(row: BatchRow, deployment: Deployment, *, is_over: bool) -> dict[str, Any]:
    decimals = deployment.token_decimals
    return {
        "input_tokens": row.units_in,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": row.units_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": row.units_in + row.units_out,
        "cost": money.to_number(row.cost_atoms, decimals),
        "cost_details": {
            "currency": deployment.token_symbol,
            "amount": format_atoms(row.cost_atoms, decimals),
            "atoms": str(row.cost_atoms),
            "ceiling_atoms": str(row.ceiling_atoms),
            "refunded_atoms": str(row.ceiling_atoms - row.cost_atoms if is_over else 0),
            "energy_millijoules": str(row.energy_millijoules),
        },
    }


def _errors(tx: Tx, row: BatchRow) -> dict[str, Any]:
    lines = files.lines(tx, row.error_file_id, 0)[:_SHOWN_ERRORS]
    told = [(number, json.loads(body)["response"]["body"]["error"]) for number, body in lines]
    data = [
        {"code": error["code"], "message": error["message"], "param": error["param"], "line": number}
        for number, error in told
    ]
    return {"object": "list", "data": data}


async def _wish(market: Market, call: BatchCall, request: Request) -> Wish:
    key = (await bearer(market, request)).address
    if call.endpoint not in CALLS:
        detail = f"endpoint must be one of {', '.join(CALLS)}"
        raise BadRequest(ErrorCode.UNSUPPORTED, detail, param="endpoint")
    labels = call.metadata or {}
    _check_labels(labels)
    limit = call.max_cost if call.max_cost is not None else labels.get("max_cost")
    decimals = market.deployment.token_decimals
    return Wish(
        key=key,
        input_file_id=call.input_file_id,
        endpoint=call.endpoint,
        labels=labels,
        max_cost_atoms=None if limit is None else money.to_atoms(limit, decimals, "max_cost"),
        trace_id=trace_of(market, request),
        once=once_of(request, key, call),
        keep_ms=file_keep_ms(market.terms, call.output_expires_after, "output_expires_after"),
    )


def _check_labels(labels: dict[str, str]) -> None:
    for name, value in labels.items():
        if len(name) > 64 or len(value) > 512:
            detail = "metadata: names have at most 64 characters, values at most 512"
            raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="metadata")

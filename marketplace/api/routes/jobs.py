"""Jobs, receipts, quotes and vouchers: the market's own routes about work."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from marketplace.api import messages, retention, views, waiting
from marketplace.api.auth import caller
from marketplace.api.once import mark, name_of
from marketplace.api.routes.work import trace_of
from marketplace.dispatch import forget, once
from marketplace.dispatch.step import Given
from marketplace.flow import Market, Running
from marketplace.openai import money, requests
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Order, Voucher
from marketplace.protocol.money import format_atoms
from marketplace.protocol.payloads import (
    BLANK_MODEL,
    MAX_MESSAGES,
    Payload,
    build_payload,
    canonical_json,
    task_type,
)
from marketplace.quoting import rules
from marketplace.quoting.step import quote
from marketplace.settlement import step as settlement
from marketplace.store import jobs, receipts
from marketplace.store.offers import Listing
from marketplace.store.tables import JobRow, ReceiptRow, Tx


class Units(BaseModel):
    """How large a call is at most, of which no more is told."""

    input: int = Field(ge=0, lt=1 << 32)
    output: int = Field(ge=0, lt=1 << 32)


class QuoteCall(BaseModel):
    """Body of `POST /v1/quotes`: a call that is not made. Other tasks than chat and embed have a `body`.

    Of a call that will be sealed, `task` and `units` are enough.
    """

    model: str = Field(min_length=1, max_length=128, pattern=requests.PLAIN)
    task: str | None = Field(default=None, max_length=32)
    messages: list[requests.Turn] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)
    input: str | list[str] | None = None
    body: dict[str, Any] | None = Field(default=None, description="Fields of the task's payload.")
    units: Units | None = Field(default=None, description="Most units it can be billed for, in its place.")
    max_tokens: int | None = Field(default=None, ge=1, le=32_768)
    n: int = Field(default=1, ge=1, le=requests.MAX_CHOICES, description="Priced together; chat alone.")
    max_cost: str | float | None = None
    node: int | None = Field(default=None, ge=1, lt=1 << 32)


class OrderCall(BaseModel):
    """Body of `POST /v1/jobs`: an order signed by a session's key, and what it is for: plain, or sealed."""

    order: dict[str, Any]
    signature: str
    salt: str | None = None
    payload: str | None = Field(default=None, description="Base64 of the canonical request bytes.")
    sealed: str | None = Field(
        default=None, description="Base64 of salt and request, sealed to the order's node; in place of both."
    )
    stream: bool = False
    retain: str | None = Field(default=None, max_length=16, description=requests.RETAIN)


class VoucherCall(BaseModel):
    """Body of `POST /v1/vouchers`."""

    voucher: dict[str, Any]
    signature: str


def routes(market: Market) -> APIRouter:
    """Routes about work."""
    router = APIRouter(tags=["work"])
    _orders(router, market)
    _jobs(router, market)
    _evidence(router, market)
    return router


def page(data: list[dict[str, Any]], id_name: str, *, has_more: bool) -> dict[str, Any]:
    """OpenAI's list shape."""
    return {
        "object": "list",
        "data": data,
        "has_more": has_more,
        "first_id": data[0][id_name] if data else None,
        "last_id": data[-1][id_name] if data else None,
    }


def _orders(router: APIRouter, market: Market) -> None:
    @router.post("/v1/quotes")
    async def quotes(call: QuoteCall) -> dict[str, Any]:
        """Ranks offers for a request; charges nothing."""
        return await _quotes(market, call)

    @router.post("/v1/jobs", status_code=202)
    async def place(call: OrderCall, request: Request) -> Response:
        """Sends on an order signed elsewhere; the same order again is the same job."""
        salt, payload = _content(call)
        given = Given(
            order=messages.read(Order, call.order, "order"),
            signature=messages.blob(call.signature, "signature"),
            salt=salt,
            payload=payload,
            sealed=call.sealed is not None,
            streamed=call.stream,
            keep_ms=retention.keep_ms(market.terms, request, call.retain),
        )
        running = await market.place_signed(given, trace_of(market, request))
        mark(request, running, market.deployment)
        if "text/event-stream" in request.headers.get("accept", ""):
            return _events(market, running, request)
        view = await market.read(lambda tx: views.job_view(tx, _job(tx, running.job_id)))
        return JSONResponse(view, 202)


def _jobs(router: APIRouter, market: Market) -> None:
    @router.get("/v1/jobs")
    async def listed(
        request: Request,
        limit: int = Query(default=20, ge=1, le=100),
        after: str | None = Query(default=None, pattern="^job_[a-z2-7]{1,40}$"),
        idempotency_key: str | None = Query(default=None, description="Only the job of this key."),
    ) -> dict[str, Any]:
        """Lists the caller's jobs, newest first; or tells what became of the call with one key."""
        key = await caller(market, request)
        if idempotency_key is not None:
            return await _called(market, name_of(key, idempotency_key))
        rows = await market.read(lambda tx: jobs.of_key(tx, key, limit + 1, after))
        data = [views.job_line(row) for row in rows[:limit]]
        return page(data, "job_id", has_more=len(rows) > limit)

    @router.get("/v1/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, Any]:
        """Shows a job; its id is the permission."""
        return await market.read(lambda tx: views.job_view(tx, _job(tx, job_id)))

    @router.delete("/v1/jobs/{job_id}")
    async def delete(job_id: str, request: Request) -> dict[str, Any]:
        """Deletes a job's input and output; hashes, amounts and receipt stay. Idempotent."""
        key, now = await caller(market, request), market.clock()
        signer, domain = market.vault.identity, market.domain
        await market.erase(lambda tx: forget.ask(tx, key, job_id, signer, domain, now))
        return await market.read(lambda tx: retention.deleted_view(tx, _job(tx, job_id)))

    @router.post("/v1/jobs/{job_id}/cancel")
    async def cancel(job_id: str) -> dict[str, Any]:
        """Ends a job with what it has, and only that is paid; its id is the permission."""
        await market.cancel(job_id)
        return await market.read(lambda tx: views.job_view(tx, _job(tx, job_id)))

    @router.get("/v1/jobs/{job_id}/events")
    async def job_events(job_id: str, request: Request) -> Response:
        """Streams a job's chunks from the first, then its receipt or problem."""
        return _events(market, await market.watch(job_id), request)


def _evidence(router: APIRouter, market: Market) -> None:
    @router.get("/v1/receipts/{receipt_id}")
    async def receipt(receipt_id: str) -> dict[str, Any]:
        """Gives a receipt with all that verifies it offline."""

        def load(tx: Tx) -> dict[str, Any]:
            row = _receipt(tx, receipt_id)
            return views.bundle(tx, row, market.deployment, receipts.chunks(tx, row.order_hash))

        return await market.read(load)

    @router.post("/v1/vouchers")
    async def voucher(call: VoucherCall) -> dict[str, Any]:
        """Takes a voucher its key signed, and forwards it to the node."""
        message = messages.read(Voucher, call.voucher, "voucher")
        signature, now = messages.blob(call.signature, "signature"), market.clock()
        taken = await market.write(
            lambda tx: settlement.take_voucher(tx, message, signature, market.domain, now)
        )
        market.send_voucher(taken)
        return {
            "session_id": to_hex(message.session_id),
            "through_seq": message.through_seq,
            "amount_atoms": str(message.amount_atoms),
            "new": taken is not None,
        }


async def _called(market: Market, name: str) -> dict[str, Any]:
    """The one job that is known by a name, whole."""

    def load(tx: Tx) -> list[dict[str, Any]]:
        job = once.find(tx, name, market.clock())
        return [] if job is None else [views.job_view(tx, job)]

    return page(await market.read(load), "job_id", has_more=False)


async def _quotes(market: Market, call: QuoteCall) -> dict[str, Any]:
    deployment = market.deployment
    limit = (
        None
        if call.max_cost is None
        else money.to_atoms(call.max_cost, deployment.token_decimals, "max_cost")
    )
    now, least = market.clock(), deployment.min_stake_atoms
    # The same question gets the same version of a model that is on trial.
    ticket = canonical_json(call.model_dump(mode="json"))
    need = await _need(market, call, limit, ticket)
    found = await market.read(
        lambda tx: quote(tx, call.model, need, now_ms=now, min_stake_atoms=least, ticket=ticket)
    )
    ends = [item.listing.offer.valid_until for item in found.quotes if item.eligible]
    return {
        "model": found.model_name,
        "model_id": found.model_id,
        "n": need.choices,
        "input_units": {
            "count": need.units_in,
            "exact": need.exact,
            "estimate": None if need.exact else "bytes" if call.units is None else "given",
        },
        "quotes": [_quote(item, need, deployment.token_decimals) for item in found.quotes],
        "expires_at": min(ends) if ends else now // 1000,
    }


async def _need(market: Market, call: QuoteCall, limit: int | None, ticket: bytes) -> rules.Need:
    if [call.messages, call.input, call.body, call.units].count(None) != 3:
        detail = "give one of messages, input, body and units"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="messages")
    if call.n != 1 and call.messages is None:
        raise BadRequest(ErrorCode.UNSUPPORTED, "only chat has choices: n must be 1", param="n")
    if call.units is not None:
        task = call.task or ""
        task_type(task)
        return rules.Need(
            task=task,
            units_in=call.units.input,
            units_out=call.units.output,
            max_cost_atoms=limit,
            node_id=call.node,
        )
    payload = _payload(call)
    counted = await market.counter.of(call.model, payload, call.node, ticket, limited=limit is not None)
    need = rules.need_of(payload, limit, call.node, counted=counted.units_in if counted else None)
    return replace(need, choices=call.n)


def _payload(call: QuoteCall) -> Payload:
    if call.body is not None:
        return build_payload(call.task or "", BLANK_MODEL, call.body)
    if call.messages is not None:
        chat = requests.ChatCall(model=call.model, messages=call.messages, max_tokens=call.max_tokens)
        return chat.payload(0)
    return requests.EmbedCall(model=call.model, input=call.input or "").payload()


def _quote(item: rules.Quote[Listing], need: rules.Need, decimals: int) -> dict[str, Any]:
    listing = item.listing
    return {
        "node_id": listing.node_id,
        "model_id": listing.model_id,
        "offer": listing.offer.to_json(),
        "offer_signature": to_hex(listing.signature),
        "offer_hash": listing.offer_hash,
        "ceiling_atoms": str(item.ceiling_atoms),
        "ceiling": format_atoms(item.ceiling_atoms, decimals),
        "units_in_ceiling": need.units_in,
        "units_out_ceiling": need.units_out,
        "reason": item.reason,
        "eligible": item.eligible,
        "why_not": item.why_not.value if item.why_not else None,
        "queue_depth": listing.queue_depth,
        "free_slots": listing.free_slots,
        "signer": listing.signer,
        "epoch": listing.epoch,
    }


def _events(market: Market, running: Running, request: Request) -> Response:
    lines = waiting.job_events(market, running, request.state.request_id)
    headers = waiting.SSE_HEADERS | {"x-job-id": running.job_id}
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


def _job(tx: Tx, job_id: str) -> JobRow:
    job = jobs.find(tx, job_id)
    if job is None:
        raise BadRequest(ErrorCode.UNKNOWN_JOB)
    return job


def _receipt(tx: Tx, receipt_id: str) -> ReceiptRow:
    row = receipts.find_by_id(tx, receipt_id)
    if row is None:
        raise BadRequest(ErrorCode.UNKNOWN_RECEIPT)
    return row


def _content(call: OrderCall) -> tuple[bytes, bytes]:
    """Salt and payload; of a sealed request no salt, and its one sealed text."""
    if call.sealed is not None and call.salt is None and call.payload is None:
        return b"", _base64(call.sealed, "sealed")
    if call.sealed is not None or call.salt is None or call.payload is None:
        detail = "give salt and payload, or sealed alone"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="payload")
    return messages.blob(call.salt, "salt", 32), _base64(call.payload, "payload")


def _base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{name} must be base64", param=name) from error

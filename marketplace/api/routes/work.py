"""OpenAI's own routes, models, embeddings, chat; and one for each other task."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from marketplace.api import paying, problems, views, waiting
from marketplace.api.auth import bearer
from marketplace.dispatch.terms import Ask
from marketplace.flow import Market, Running
from marketplace.openai import answers, money, requests
from marketplace.protocol import ids
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.protocol.hexes import keccak
from marketplace.protocol.money import format_atoms
from marketplace.protocol.payloads import TASKS, Logprobs, Payload, canonical_json
from marketplace.quoting import rules
from marketplace.store import aliases, offers
from marketplace.store.offers import Listing
from marketplace.store.tables import ModelAliasRow, Tx

Names = Mapping[str, list[ModelAliasRow]]

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def routes(market: Market) -> APIRouter:
    """Routes an OpenAI client knows."""
    router = APIRouter(tags=["openai"])

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """Lists the models on offer, cheapest prices first."""
        found, named = await market.read(_listed)
        return {"object": "list", "data": _models(market, found, named)}

    @router.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        """Shows one model."""
        found, named = await market.read(lambda tx: _listed(tx, aliases.meaning(tx, model)))
        rows = _models(market, found, named)
        if not rows:
            raise BadRequest(ErrorCode.UNKNOWN_MODEL, f"nobody offers {model[:80]!r}")
        return rows[0]

    @router.post("/v1/embeddings")
    async def embed(call: requests.EmbedCall, request: Request) -> Response:
        """Embeds texts."""
        running, ask = await _placed(market, request, call, call.payload(), streamed=False)
        found = await waiting.delivered(market, running)
        body = answers.embeddings(call.model, found.answer, call.encoding_format)
        return _answer(market, body, found, ask)

    @router.post("/v1/chat/completions")
    async def chat(call: requests.ChatCall, request: Request) -> Response:
        """Continues a conversation."""
        payload = call.payload(int.from_bytes(market.random(8), "big"))
        running, ask = await _placed(market, request, call, payload, streamed=call.stream)
        if call.stream:
            lines = _stream(market, running, ask, request.state.request_id)
            headers = waiting.SSE_HEADERS | _headers(running.job_id, ask)
            return StreamingResponse(lines, media_type="text/event-stream", headers=headers)
        found = await waiting.delivered(market, running)
        created = found.job.created_at_ms // 1000
        body = answers.chat_completion(running.job_id, call.model, created, found.answer)
        return _answer(market, body, found, ask)

    for task, kind in TASKS.items():
        if task not in ("chat", "embed"):
            _add_task(router, market, task, kind)
    return router


def _add_task(router: APIRouter, market: Market, task: str, kind: type[Payload]) -> None:
    """Route of a task that OpenAI has no route for: its payload's fields in, its answer as JSON out."""

    async def run(call: requests.TaskCall, request: Request) -> Response:
        running, ask = await _placed(market, request, call, call.payload(task), streamed=False)
        found = await waiting.delivered(market, running)
        return _answer(market, answers.task_answer(task, kind, call.model, found.answer), found, ask)

    # FastAPI reads the body's fields here; they are known only now.
    run.__annotations__ = {"call": requests.task_call(task, kind), "request": Request, "return": Response}
    what = (kind.__doc__ or "").strip()
    router.add_api_route(f"/v1/{task}", run, methods=["POST"], summary=task.capitalize(), description=what)


async def _placed(
    market: Market,
    request: Request,
    call: requests.ChatCall | requests.EmbedCall | requests.TaskCall,
    payload: Payload,
    *,
    streamed: bool,
) -> tuple[Running, Ask]:
    limit, decimals = call.max_cost, market.deployment.token_decimals
    most = None if limit is None else money.to_atoms(limit, decimals, "max_cost")
    fingerprint = keccak(canonical_json(call.model_dump(mode="json"))).hex()
    if paying.wants_to_pay(market, request):
        keyless = paying.Call(
            model=call.model,
            payload=payload,
            seeded=getattr(call, "seed", None) is not None,
            trace_id=trace_of(market, request),
            max_cost_atoms=most,
            node_id=call.node,
            streamed=streamed,
            fingerprint=fingerprint,
        )
        return await paying.place(market, request, keyless)
    key = await bearer(market, request)
    ask = Ask(
        key=key,
        model=call.model,
        payload=payload,
        trace_id=trace_of(market, request),
        max_cost_atoms=most,
        node_id=call.node,
        streamed=streamed,
        idempotency=_idempotency(request, key.address),
        fingerprint=fingerprint,
        # OpenAI clients count their own retries, and send no idempotency key.
        repeated=request.headers.get("x-stainless-retry-count", "0") not in ("", "0"),
    )
    return await market.place(ask), ask


async def _stream(market: Market, running: Running, ask: Ask, request_id: str) -> AsyncIterator[str]:
    created = market.clock() // 1000
    merger = waiting.Merger()

    def piece(delta: dict[str, Any], finish: str | None = None, told: Logprobs = ()) -> str:
        return waiting.event(answers.chat_chunk(running.job_id, ask.model, created, delta, finish, told))

    yield piece({"role": "assistant", "content": ""})
    async for chunk in running.stream.read():
        text, told = merger.add(chunk.order_hash, chunk.body)
        if text or told:
            yield piece({"content": text}, told=told)
    try:
        found = await waiting.outcome(market, running.job_id)
    except WattError as error:
        yield waiting.event(problems.body_of(error, request_id))
        yield "data: [DONE]\n\n"
        return
    text, told = merger.rest(found.answer)
    if merger.diverged or merger.sent != found.answer.text:
        yield waiting.event(problems.body_of(_diverged(running.job_id), request_id, charged=True))
        yield "data: [DONE]\n\n"
        return
    if text or told:
        yield piece({"content": text}, told=told)
    yield piece({}, answers.finish_of(found.answer))
    last = answers.chat_chunk(running.job_id, ask.model, created, None)
    yield waiting.event(last | _extras(market, found, ask))
    yield "data: [DONE]\n\n"


def _diverged(job_id: str) -> WattError:
    detail = f"another node took over and wrote another text; the whole answer is at /v1/jobs/{job_id}"
    return BadRequest(ErrorCode.NODE_FAILED, detail, job_id=job_id)


def _answer(market: Market, body: dict[str, Any], found: views.Delivery, ask: Ask) -> Response:
    return JSONResponse(body | _extras(market, found, ask), headers=_headers(found.job.job_id, ask))


def _extras(market: Market, found: views.Delivery, ask: Ask) -> dict[str, Any]:
    extras = {"usage": waiting.usage_of(found, market), "job_id": found.job.job_id, "receipt": found.bundle}
    return extras | ({"x402_payment_response": ask.payment} if ask.payment else {})


def _headers(job_id: str, ask: Ask) -> dict[str, str]:
    return {"x-job-id": job_id, "x-trace-id": ask.trace_id} | paying.headers_of(ask.payment)


def trace_of(market: Market, request: Request) -> str:
    """The caller's W3C trace id, or a fresh one."""
    found = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    if found and int(found[1], 16) and int(found[2], 16):
        return found[1]
    return ids.trace_id(market.random(16))


def _idempotency(request: Request, key: str) -> str | None:
    given = request.headers.get("idempotency-key")
    return keccak(f"{key}\0{given}".encode()).hex() if given else None


def _listed(tx: Tx, model: str | None = None) -> tuple[list[Listing], Names]:
    found = offers.listings(tx, model)
    return found, aliases.of_models(tx, {item.model_id for item in found})


def _models(market: Market, found: list[Listing], named: Names) -> list[dict[str, Any]]:
    decimals = market.deployment.token_decimals
    rows: dict[str, list[Listing]] = {}
    for item in found:
        rows.setdefault(item.model_name, []).append(item)
    return [_model(name, items, decimals, named) for name, items in sorted(rows.items())]


def _model(name: str, items: list[Listing], decimals: int, named: Names) -> dict[str, Any]:
    model_id = rules.resolve(name, items) or ""
    same = [item for item in items if item.model_id == model_id]
    live = [item for item in same if item.connected]
    prices = {
        "per_job": min(item.offer.price_per_job_atoms for item in same),
        "in_per_million": min(item.offer.price_in_per_million_atoms for item in same),
        "out_per_million": min(item.offer.price_out_per_million_atoms for item in same),
    }
    return {
        "id": name,
        "object": "model",
        "created": min(item.offer.valid_until for item in same),
        "owned_by": "wattline",
        "model_id": model_id,
        "aliases": [
            {"alias": row.alias, "publisher": row.publisher, "fixed": row.fixed} for row in named[model_id]
        ],
        "task": same[0].task,
        "tasks": sorted({item.task for item in same}),
        "context_tokens": min(item.context_tokens for item in same),
        "offers": len(live),
        "prices": {name: format_atoms(atoms, decimals) for name, atoms in prices.items()},
        "prices_atoms": {name: str(atoms) for name, atoms in prices.items()},
    }

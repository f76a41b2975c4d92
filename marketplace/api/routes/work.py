"""OpenAI's own routes, models, embeddings, chat; and one for each other task."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from marketplace import delivery
from marketplace.api import budget, choices, paying, retention, views, waiting
from marketplace.api.auth import bearer
from marketplace.api.once import fingerprint_of, once_of
from marketplace.dispatch.terms import Ask
from marketplace.flow import Market, Running
from marketplace.openai import answers, money, requests
from marketplace.protocol import ids
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.money import format_atoms
from marketplace.protocol.payloads import TASKS, Payload
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
        return answer(market, body, [found], ask)

    @router.post("/v1/chat/completions")
    async def chat(call: requests.ChatCall, request: Request) -> Response:
        """Continues a conversation, `n` times over if asked to."""
        payloads = call.payloads(int.from_bytes(market.random(8), "big"))
        ask = await asked(market, request, call, payloads[0], streamed=call.stream, choices=len(payloads))
        placed = await choices.place(market, request, ask, payloads)
        created = market.clock() // 1000
        if call.stream:
            shape = answers.ChatChunks(job_id=placed.job_id, model=call.model, created=created)
            lines = choices.lines(market, placed, shape, request.state.request_id)
            return streamed(lines, placed.job_id, ask)
        found = await choices.delivered(market, placed)
        texts = [one.answer for one in found]
        created = found[0].job.created_at_ms // 1000
        return answer(market, answers.chat_completion(placed.job_id, call.model, created, *texts), found, ask)

    for task, kind in TASKS.items():
        if task not in ("chat", "embed"):
            _add_task(router, market, task, kind)
    return router


def _add_task(router: APIRouter, market: Market, task: str, kind: type[Payload]) -> None:
    """Route of a task that OpenAI has no route for: its payload's fields in, its answer as JSON out."""

    async def run(call: requests.TaskCall, request: Request) -> Response:
        running, ask = await _placed(market, request, call, call.payload(task), streamed=False)
        found = await waiting.delivered(market, running)
        return answer(market, answers.task_answer(task, kind, call.model, found.answer), [found], ask)

    # FastAPI reads the body's fields here; they are known only now.
    run.__annotations__ = {"call": requests.task_call(task, kind), "request": Request, "return": Response}
    what = (kind.__doc__ or "").strip()
    router.add_api_route(f"/v1/{task}", run, methods=["POST"], summary=task.capitalize(), description=what)


async def _placed(
    market: Market, request: Request, call: requests.Call, payload: Payload, *, streamed: bool
) -> tuple[Running, Ask]:
    ask = await asked(market, request, call, payload, streamed=streamed)
    return await choices.put(market, request, ask), ask


async def asked(
    market: Market,
    request: Request,
    call: requests.Call,
    payload: Payload,
    *,
    streamed: bool,
    choices: int = 1,
) -> Ask:
    """The call as its key asks for it; without a key, as its payment does. Raises `BadRequest`."""
    limit, decimals = call.max_cost, market.deployment.token_decimals
    most = None if limit is None else money.to_atoms(limit, decimals, "max_cost")
    keep_ms = retention.keep_ms(market.terms, request, call.retain)
    if paying.wants_to_pay(market, request):
        if choices > 1:
            raise BadRequest(ErrorCode.UNSUPPORTED, "a payment buys one choice: n must be 1", param="n")
        keyless = paying.Call(
            model=call.model,
            payload=payload,
            seeded=getattr(call, "seed", None) is not None,
            trace_id=trace_of(market, request),
            max_cost_atoms=most,
            node_id=call.node,
            streamed=streamed,
            fingerprint=fingerprint_of(request, call),
            keep_ms=keep_ms,
        )
        return await paying.paid(market, request, keyless)
    key = await bearer(market, request)
    return Ask(
        key=key,
        model=call.model,
        payload=payload,
        trace_id=trace_of(market, request),
        max_cost_atoms=most,
        node_id=call.node,
        streamed=streamed,
        keep_ms=keep_ms,
        once=once_of(request, key.address, call),
    )


def answer(market: Market, body: dict[str, Any], found: Sequence[views.Delivery], ask: Ask) -> Response:
    """A whole answer with usage, receipts, and what is left."""
    whole = body | delivery.extras(found, market.deployment) | paying.told(ask.payment)
    headers = headers_of(found[0].job.job_id, ask) | budget.headers(found[-1].left, market.deployment)
    return JSONResponse(whole, headers=headers)


def streamed(lines: AsyncIterator[str], job_id: str, ask: Ask) -> Response:
    """A streamed answer."""
    headers = waiting.SSE_HEADERS | headers_of(job_id, ask)
    return StreamingResponse(lines, media_type="text/event-stream", headers=headers)


def headers_of(job_id: str, ask: Ask) -> dict[str, str]:
    """Headers of an answer: its job, or its first one's, its trace, and the payment that was taken."""
    return {"x-job-id": job_id, "x-trace-id": ask.trace_id} | paying.headers_of(ask.payment)


def trace_of(market: Market, request: Request) -> str:
    """The caller's W3C trace id, or a fresh one."""
    found = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    if found and int(found[1], 16) and int(found[2], 16):
        return found[1]
    return ids.trace_id(market.random(16))


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

"""OpenAI's responses. A response is a job, so it is there after a restart too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from marketplace import delivery
from marketplace.api import choices, paying, problems, views, waiting
from marketplace.api.auth import bearer, caller
from marketplace.api.routes import work
from marketplace.dispatch.terms import Ask
from marketplace.flow import Market, Running
from marketplace.openai import billing, responses
from marketplace.openai.answers import Piece
from marketplace.openai.response_calls import Echo, ResponseCall, continued
from marketplace.openai.responses import About
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import ChatMessage, ChatPayload, parse_payload
from marketplace.protocol.phases import HAS_RESULT, EndReason, JobPhase
from marketplace.store import jobs
from marketplace.store.tables import JobRow, Tx


def routes(market: Market) -> APIRouter:
    """Make, ask for, cancel."""
    router = APIRouter(tags=["openai"])

    @router.post("/v1/responses")
    async def create(call: ResponseCall, request: Request) -> Response:
        """Answers a text or a conversation; `previous_response_id` goes on from an earlier answer."""
        earlier = await _earlier(market, request, call.previous_response_id)
        payload = call.payload(int.from_bytes(market.random(8), "big"), earlier)
        ask = await work.asked(market, request, call, payload, streamed=call.stream)
        echo = call.echo()
        ask = replace(ask, echo=echo.model_dump_json())
        running = await choices.put(market, request, ask)
        created = market.clock() // 1000
        about = About(job_id=running.job_id, model=call.model, created_at=created, payload=payload, echo=echo)
        if call.stream:
            lines = _lines(market, running, about, ask, request.state.request_id)
            return work.streamed(lines, running.job_id, ask)
        if echo.background:
            shown = responses.unfinished(about) | {"job_id": running.job_id}
        else:
            shown = _whole(market, about, await waiting.delivered(market, running))
        shown |= paying.told(ask.payment)
        return JSONResponse(shown, headers=work.headers_of(running.job_id, ask))

    @router.get("/v1/responses/{response_id}")
    async def show(
        response_id: str, request: Request, *, stream: bool = Query(default=False)
    ) -> dict[str, Any]:
        """Shows a response as it stands, to the key that paid for it."""
        if stream:
            detail = f"follow GET /v1/jobs/{responses.job_id(response_id)}/events instead"
            raise BadRequest(ErrorCode.UNSUPPORTED, detail, param="stream")
        key = await caller(market, request)
        return await market.read(lambda tx: _shown(tx, market, response_id, key, request))

    @router.post("/v1/responses/{response_id}/cancel")
    async def cancel(response_id: str, request: Request) -> dict[str, Any]:
        """Ends a response with what it has, and only that is paid; it runs until its node has stopped."""
        key = await caller(market, request)
        await market.read(lambda tx: _own(tx, response_id, key))
        await market.cancel(responses.job_id(response_id))
        return await market.read(lambda tx: _shown(tx, market, response_id, key, request))

    return router


async def _earlier(market: Market, request: Request, previous: str | None) -> Sequence[ChatMessage]:
    """The conversation up to an earlier response of the same key. Raises `BadRequest`."""
    if previous is None:
        return ()
    key = (await bearer(market, request)).address

    def load(tx: Tx) -> Sequence[ChatMessage]:
        job = _own(tx, previous, key)
        if JobPhase(job.phase) not in HAS_RESULT:
            detail = f"{previous} has no answer to go on from; ask for it: GET /v1/responses/{previous}"
            raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="previous_response_id")
        found = views.delivery(tx, job, market.deployment)
        return continued(_payload(job), Echo.model_validate_json(job.echo), found.answer.text)

    return await market.read(load)


async def _lines(
    market: Market, running: Running, about: About, ask: Ask, request_id: str
) -> AsyncIterator[str]:
    events = responses.Events(about)
    for event in events.opening():
        yield _line(event)
    async for item in choices.follow(market, running):
        if isinstance(item, Piece):
            made = events.text(item)
        elif item.problem is None and item.found is not None:
            made = events.closing(_whole(market, about, item.found) | paying.told(ask.payment))
        else:
            # Without an ending the job goes on, or its whole answer is kept: only the stream is over.
            body = problems.body_of(item.problem or BadRequest(ErrorCode.INTERNAL), request_id)
            over = item.found is not None or body["code"] == ErrorCode.NOT_READY
            made = [events.broken(body) if over else events.failed(body)]
        for event in made:
            yield _line(event)


def _line(event: dict[str, Any]) -> str:
    return waiting.event(event, event["type"])


def _whole(market: Market, about: About, found: views.Delivery) -> dict[str, Any]:
    return responses.answered(about, found.answer) | {
        "usage": billing.of_response(delivery.spent(found), delivery.currency(market.deployment)),
        "completed_at": (found.job.ended_at_ms or 0) // 1000,
        "job_id": about.job_id,
        "receipt": found.bundle,
    }


def _shown(tx: Tx, market: Market, response_id: str, key: str, request: Request) -> dict[str, Any]:
    job = _own(tx, response_id, key)
    about = About(
        job_id=job.job_id,
        model=job.model_name,
        created_at=job.created_at_ms // 1000,
        payload=_payload(job),
        echo=Echo.model_validate_json(job.echo),
    )
    if JobPhase(job.phase) in HAS_RESULT:
        return _whole(market, about, views.delivery(tx, job, market.deployment))
    if job.ended_at_ms is None:
        shown = responses.unfinished(about)
    elif job.end_reason == EndReason.CANCELLED:
        shown = responses.unfinished(about, "cancelled")
    else:
        problem = waiting.problem_of(job, job.job_id) or BadRequest(ErrorCode.INTERNAL)
        shown = responses.failed(about, problems.body_of(problem, request.state.request_id))
    return shown | {"job_id": job.job_id}


def _own(tx: Tx, response_id: str, key: str) -> JobRow:
    """The job behind a response of this key. Raises `BadRequest` where it has none by this id any more."""
    job = jobs.find(tx, responses.job_id(response_id))
    if job is not None and job.key == key:
        delivery.check_kept(job)
    if job is None or job.key != key or not job.echo:
        raise BadRequest(ErrorCode.UNKNOWN_JOB, f"this key has no response {response_id[:64]!r}")
    return job


def _payload(job: JobRow) -> ChatPayload:
    payload = parse_payload(job.payload)
    if not isinstance(payload, ChatPayload):
        raise BadRequest(ErrorCode.UNKNOWN_JOB, f"job {job.job_id} is no response")
    return payload

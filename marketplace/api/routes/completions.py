"""OpenAI's older text completions."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from marketplace.api import choices
from marketplace.api.routes import work
from marketplace.flow import Market
from marketplace.openai.completions import CompletionCall, TextChunks, text_completion


def routes(market: Market) -> APIRouter:
    """The one route."""
    router = APIRouter(tags=["openai"])

    @router.post("/v1/completions")
    async def complete(call: CompletionCall, request: Request) -> Response:
        """Answers each prompt as one user turn of a chat, `n` times over if asked to."""
        payloads = call.payloads(int.from_bytes(market.random(8), "big"))
        ask = await work.asked(
            market, request, call, payloads[0], streamed=call.stream, choices=len(payloads)
        )
        placed = await choices.place(market, request, ask, payloads)
        if call.stream:
            created = market.clock() // 1000
            shape = TextChunks(job_id=placed.job_id, model=call.model, created=created)
            lines = choices.lines(market, placed, shape, request.state.request_id)
            return work.streamed(lines, placed.job_id, ask)
        found = await choices.delivered(market, placed)
        created = found[0].job.created_at_ms // 1000
        texts = [one.answer for one in found]
        return work.answer(market, text_completion(placed.job_id, call.model, created, *texts), found, ask)

    return router

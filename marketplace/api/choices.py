"""One call, one choice or more: each a job of its own, all placed or none, streamed side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from fastapi import Request

from marketplace import delivery
from marketplace.api import paying, problems, views, waiting
from marketplace.api.once import mark
from marketplace.dispatch.terms import Ask
from marketplace.flow import Market, Running
from marketplace.openai.answers import Piece
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.protocol.hexes import keccak
from marketplace.protocol.payloads import Answer, Payload


class Shape(Protocol):
    """Chunks of a streamed call in the form of its route."""

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """What comes before any text."""

    def text(self, index: int, piece: Piece) -> dict[str, Any]:
        """The next piece of a choice's text."""

    def end(self, index: int, answer: Answer) -> dict[str, Any]:
        """Why a choice's text ends."""

    def last(self) -> dict[str, Any]:
        """The one that usage and receipts are added to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a choice ended: what it delivered, what went wrong; both where its stream can not show it."""

    found: views.Delivery | None = None
    problem: WattError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A call's jobs, one a choice.

    Attributes:
        recognised: the same call again will be known as such, so that it pays only for what failed.
        payment: what its x402 payment came to; None for a call with a key.
    """

    jobs: Sequence[Running]
    recognised: bool
    payment: Mapping[str, Any] | None = None

    @property
    def job_id(self) -> str:
        """The first one's."""
        return self.jobs[0].job_id


async def place(market: Market, request: Request, ask: Ask, payloads: Sequence[Payload]) -> Placed:
    """Orders every payload as a choice of the call, or none of them. Raises `BadRequest`."""
    asks = [_choice(ask, index, payload) for index, payload in enumerate(payloads)]
    # Whoever counts its retries says so from the first try on.
    recognised = ask.once.name is not None or "x-stainless-retry-count" in request.headers
    return Placed(jobs=await _put(market, request, asks), recognised=recognised, payment=ask.payment)


async def put(market: Market, request: Request, ask: Ask) -> Running:
    """Orders a call of one choice. Raises `BadRequest`."""
    return (await _put(market, request, [ask]))[0]


async def _put(market: Market, request: Request, asks: Sequence[Ask]) -> list[Running]:
    try:
        placed = await market.place_all(asks)
    except BadRequest as refused:
        await paying.again(market, request, refused)
        raise
    mark(request, placed[0], market.deployment)
    return placed


async def delivered(market: Market, placed: Placed) -> list[views.Delivery]:
    """Waits for every choice.

    Raises:
        WattError: one failed; the error says what was charged for the others.
    """
    ended = await asyncio.gather(*(_awaited(market, running) for running in placed.jobs))
    problem = _verdict(ended, placed)
    if problem is not None:
        raise problem
    return [one.found for one in ended if one.found is not None]


async def lines(market: Market, placed: Placed, shape: Shape, request_id: str) -> AsyncIterator[str]:
    """The call as server-sent events; usage and receipts come last, behind them a problem if there is one."""
    ended: dict[int, Ended] = {}
    for chunk in shape.opening(len(placed.jobs)):
        yield waiting.event(chunk)
    sources = [_numbered(index, follow(market, running)) for index, running in enumerate(placed.jobs)]
    async for index, item in _interleaved(sources):
        if isinstance(item, Piece):
            yield waiting.event(shape.text(index, item))
            continue
        ended[index] = item
        if item.problem is None and item.found is not None:
            yield waiting.event(shape.end(index, item.found.answer))
    in_order = [ended[index] for index in sorted(ended)]
    found = [one.found for one in in_order if one.found is not None]
    if found:
        yield waiting.event(
            shape.last() | delivery.extras(found, market.deployment) | paying.told(placed.payment)
        )
    problem = _verdict(in_order, placed)
    if problem is not None:
        yield waiting.event(problems.body_of(problem, request_id))
    yield "data: [DONE]\n\n"


async def follow(market: Market, running: Running) -> AsyncIterator[Piece | Ended]:
    """A job's text, piece by piece, then how it ended."""
    merger = waiting.Merger()
    start = 0
    async for chunk in running.stream.read():
        text, told = merger.add(chunk.order_hash, chunk.body)
        if text or told:
            yield Piece(start=start, text=text, told=told)
        start += len(text)
    try:
        found = await waiting.outcome(market, running.job_id)
    except WattError as error:
        yield Ended(problem=error)
        return
    text, told = merger.rest(found.answer)
    if merger.diverged or merger.sent != found.answer.text:
        yield Ended(found=found, problem=_diverged(found))
        return
    if text or told:
        yield Piece(start=start, text=text, told=told)
    yield Ended(found=found)


def _choice(ask: Ask, index: int, payload: Payload) -> Ask:
    """The first choice is the call itself; the others are known by the call and their number."""
    if index == 0:
        return ask
    derived = replace(
        ask.once,
        name=_derived(ask.once.name, index) if ask.once.name else None,
        fingerprint=_derived(ask.once.fingerprint, index),
    )
    return replace(ask, payload=payload, once=derived)


def _derived(digest: str, index: int) -> str:
    return keccak(f"{digest}\0choice {index}".encode()).hex()


async def _awaited(market: Market, running: Running) -> Ended:
    try:
        return Ended(found=await waiting.delivered(market, running))
    except WattError as error:
        return Ended(problem=error)


def _verdict(ended: Sequence[Ended], placed: Placed) -> WattError | None:
    """What a caller is told went wrong, and what it paid nevertheless."""
    failed = {index: one.problem for index, one in enumerate(ended) if one.problem is not None}
    found = [one.found for one in ended if one.found is not None]
    if not failed:
        return None
    first = next(iter(failed.values()))
    if len(ended) == 1 or not found:
        return first
    amount = sum(one.receipt.amount_atoms for one in found)
    which = f"{len(failed)} of {len(ended)} choices failed ({', '.join(map(str, failed))})"
    return BadRequest(
        ErrorCode.PARTLY_DELIVERED,
        f"{which}: {first.detail}; the others cost {amount} atoms",
        charged=amount > 0,
        retryable=placed.recognised,
        charged_atoms=str(amount),
        job_ids=[one.job.job_id for one in found],
    )


def _diverged(found: views.Delivery) -> WattError:
    job_id = found.job.job_id
    detail = f"another node took over and wrote another text; the whole answer is at /v1/jobs/{job_id}"
    charged = found.receipt.amount_atoms > 0
    return BadRequest(ErrorCode.STREAM_DIVERGED, detail, job_id=job_id, charged=charged)


async def _numbered(
    index: int, source: AsyncIterator[Piece | Ended]
) -> AsyncIterator[tuple[int, Piece | Ended]]:
    async for item in source:
        yield index, item


async def _interleaved(
    sources: Sequence[AsyncIterator[tuple[int, Piece | Ended]]],
) -> AsyncIterator[tuple[int, Piece | Ended]]:
    """What any of them gives next, until all have ended."""
    if len(sources) == 1:
        async for item in sources[0]:
            yield item
        return
    coming = {asyncio.ensure_future(anext(source, None)): source for source in sources}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source, found = coming.pop(task), task.result()
                if found is not None:
                    coming[asyncio.ensure_future(anext(source, None))] = source
                    yield found
    finally:
        for task in coming:
            task.cancel()

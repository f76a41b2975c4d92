"""From a placed job to its caller: wait for it, stream it, or say why it failed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final

from marketplace.api import problems, views
from marketplace.delivery import Evidence, evidence, failed_evidence
from marketplace.delivery import problem_of as problem_of
from marketplace.flow import Market, Running
from marketplace.funding import budgets
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace, WattError
from marketplace.protocol.payloads import Answer, Logprobs
from marketplace.store import jobs
from marketplace.store.tables import Tx

_SLACK_MS: Final = 5_000
SSE_HEADERS: Final = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def delivered(market: Market, running: Running) -> views.Delivery:
    """Waits for a job to end.

    Raises:
        WattError: it ended without an answer; nothing was charged.
    """
    left = market.terms.job_timeout_ms + market.terms.delivery_grace_ms + _SLACK_MS
    try:
        await asyncio.wait_for(running.stream.wait(), left / 1000)
    except TimeoutError:
        await _overdue(market, running.job_id)
    return await outcome(market, running.job_id)


async def outcome(market: Market, job_id: str) -> views.Delivery:
    """What an ended job brought. Raises `WattError` when it brought nothing."""

    def load(tx: Tx) -> views.Delivery:
        job = jobs.find(tx, job_id)
        problem = problem_of(job, job_id)
        if problem is not None or job is None:
            raise problem or BadRequest(ErrorCode.UNKNOWN_JOB)
        found, order = views.delivery(tx, job, market.deployment), jobs.order(tx, job.order_hash or "")
        # Asked again after it was settled, the answer is the same bytes; the receipt's page tells the rest.
        bundle = found.bundle | {"settlement": None}
        return replace(
            found, bundle=bundle, left=budgets.left(tx, job.key, order.session_id if order else "")
        )

    return await market.read(load)


class Merger:
    """A stream across nodes: a second node's answer continues the first's where their texts agree."""

    def __init__(self) -> None:
        self.sent = ""
        self.diverged = False
        self._order_hash = ""
        self._answer = Answer()
        self._told = 0

    def add(self, order_hash: str, body: bytes) -> tuple[str, Logprobs]:
        """Text and log-probabilities to send on for the next chunk."""
        if order_hash != self._order_hash:
            self._order_hash, self._answer = order_hash, Answer()
        self._answer.add(body)
        return self.rest(self._answer)

    def rest(self, answer: Answer) -> tuple[str, Logprobs]:
        """What of an answer has not been sent yet."""
        if answer.text.startswith(self.sent):
            fresh, told = answer.text[len(self.sent) :], answer.logprobs[self._told :]
            self.sent, self._told = answer.text, self._told + len(told)
            return fresh, told
        if not self.sent.startswith(answer.text):
            self.diverged = True
        return "", ()


async def job_events(market: Market, running: Running, request_id: str) -> AsyncIterator[str]:
    """A job as server-sent events: `chunk`s, then `receipt`, then `problem` where it failed."""
    seen: set[tuple[str, int]] = set()
    async for chunk in running.stream.read():
        seen.add((chunk.order_hash, chunk.index))
        yield _chunk_event(chunk.order_hash, chunk.index, chunk.body)
    found, problem = await market.read(lambda tx: _ending(tx, market, running.job_id))
    if found is not None:
        order_hash = found.job.order_hash or ""
        for index, body in enumerate(found.chunks):
            if (order_hash, index) not in seen:
                yield _chunk_event(order_hash, index, body)
        yield event(found.bundle, "receipt")
    if problem is not None:
        yield event(problems.body_of(problem, request_id), "problem")


def event(data: Any, name: str | None = None) -> str:
    """One server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _ending(tx: Tx, market: Market, job_id: str) -> tuple[Evidence | None, WattError | None]:
    job = jobs.find(tx, job_id)
    problem = problem_of(job, job_id)
    if job is None:
        return None, problem
    if problem is None and job.deleted_at_ms is not None:
        return None, BadRequest(ErrorCode.CONTENT_DELETED, job_id=job.job_id)
    if problem is None:
        return evidence(tx, job, market.deployment), None
    # Who signs its own vouchers needs the free receipt too, unless trying elsewhere is of no use.
    free = problem.code in (ErrorCode.NODE_FAILED, ErrorCode.CANCELLED) and not job.held
    return (failed_evidence(tx, job, market.deployment) if free else None), problem


def _chunk_event(order_hash: str, index: int, body: bytes) -> str:
    return event({"order_hash": order_hash, "index": index, "body": views.b64(body)}, "chunk")


async def _overdue(market: Market, job_id: str) -> None:
    # The clockwork ends jobs in time; this is for a clockwork that stands still.
    try:
        await market.expire(job_id, market.clock())
    except LostRace:
        return

"""Asks a node how many input units it will bill a request for. Lives on the event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from marketplace.dispatch.links import Links
from marketplace.ground import Ground
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from marketplace.protocol.payloads import (
    ChatPayload,
    Payload,
    encode_payload,
    parse_payload,
    units_in_ceiling,
)
from marketplace.protocol.wire import MAX_COUNTED_BYTES, Count, Counted
from marketplace.quoting.rules import Need, first_asked, need_of
from marketplace.quoting.step import Quotes
from marketplace.store import jobs

# A quote must not wait for a node that does not answer; a count takes some milliseconds, more of a busy node.
_PATIENCE_SECONDS: Final = 0.4
# With a limit that the bound in bytes exceeds, the call is refused for want of a count: that is worth a wait.
_LIMITED_PATIENCE_SECONDS: Final = 5.0
# Counts that are remembered, so that a call costs no more than its quote however busy its node is by then.
_REMEMBERED: Final = 4096
# Refusals that a count below the bound in bytes may lift.
TIGHT: Final = frozenset(
    {ErrorCode.PRICE_ABOVE_MAX, ErrorCode.BUDGET_EXCEEDED, ErrorCode.SESSION_UNDERFUNDED}
)
Quoting = Callable[[str, Need, bytes], Awaitable[Quotes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Input units of a request for one exact model: its files fix tokenizer and template."""

    model_id: str
    units_in: int


class Counter:
    """Counts requests by the node that would get them; nobody else is shown what is asked."""

    def __init__(self, ground: Ground, links: Links, quoting: Quoting) -> None:
        """`quoting` gives ranked quotes for a model, a need and a ticket."""
        self._ground = ground
        self._links = links
        self._quoting = quoting
        self._numbers = itertools.count()
        self._asked: dict[tuple[int, int], asyncio.Future[int | None]] = {}
        self._told: OrderedDict[bytes, int] = OrderedDict()

    async def of(
        self,
        model: str,
        payload: Payload,
        node_id: int | None = None,
        ticket: bytes = b"",
        tried: Collection[int] = (),
        *,
        limited: bool = False,
    ) -> Counts | None:
        """What a call would be billed for; None when nobody says. Raises `BadRequest`: unknown model.

        A `limited` call may be refused without a count, so that its node is waited for.
        """
        found = await self._quoting(model, need_of(payload, None, node_id, tried), ticket)
        asked = first_asked(found.quotes)
        if asked is None:
            return None
        exact: dict[str, Any] = {"model": found.model_id}
        if isinstance(payload, ChatPayload):
            # It counts for nothing, and a call's own is not that of its quote.
            exact["seed"] = 0
        patience = _LIMITED_PATIENCE_SECONDS if limited else _PATIENCE_SECONDS
        units_in = await self._ask(asked.node_id, payload.model_copy(update=exact), patience)
        return None if units_in is None else Counts(model_id=found.model_id, units_in=units_in)

    async def again(self, job_id: str) -> int | None:
        """For a job's next node: one with a limit may have fitted it only by the count of its first node."""
        job, past = await self._ground.read(lambda tx: (jobs.find(tx, job_id), jobs.orders_of(tx, job_id)))
        if job is None or job.max_cost_atoms is None:
            return None
        tried = [order.node_id for order in past]
        try:
            found = await self.of(job.model_id, parse_payload(job.payload), tried=tried, limited=True)
        except BadRequest:
            # Nobody offers it any more, which ends the job in its own way.
            return None
        return None if found is None else found.units_in

    def take(self, node_id: int, frame: Counted) -> None:
        """A node's answer; one that nobody waits for any more is dropped."""
        waiting = self._asked.get((node_id, frame.number))
        if waiting is not None and not waiting.done():
            waiting.set_result(frame.units_in)

    async def _ask(self, node_id: int, payload: Payload, patience_seconds: float) -> int | None:
        if payload.known_units_in is not None:
            return payload.known_units_in
        data = encode_payload(payload)
        if len(data) > MAX_COUNTED_BYTES:
            return None
        # The payload names its exact model, whose files fix the count; another node may be wrong about it.
        question = keccak(node_id.to_bytes(8, "big") + data)
        if question in self._told:
            self._told.move_to_end(question)
            return self._told[question]
        units_in = await self._answer(node_id, data, patience_seconds)
        # No receipt for more than the bound in bytes is accepted, so a higher count can not be right.
        if units_in is None or units_in > units_in_ceiling(payload):
            return None
        self._told[question] = units_in
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return units_in

    async def _answer(self, node_id: int, data: bytes, patience_seconds: float) -> int | None:
        number = next(self._numbers)
        answer = self._asked[node_id, number] = asyncio.get_running_loop().create_future()
        try:
            if not self._links.send(node_id, Count(number=number, payload=data)):
                return None
            return await asyncio.wait_for(answer, patience_seconds)
        except TimeoutError:
            return None
        finally:
            del self._asked[node_id, number]

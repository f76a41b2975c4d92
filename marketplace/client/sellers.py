"""Who sells a model now, and what work of known size costs there at most."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from marketplace.client.asks import Ask
from marketplace.client.books import Books
from marketplace.client.problems import GatewayProblem
from marketplace.client.quotes import ceiling_atoms
from marketplace.client.work import Work
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Offer
from marketplace.protocol.payloads import BLANK_MODEL

if TYPE_CHECKING:
    from marketplace.client.aio import AsyncWattline


@dataclass(frozen=True, slots=True, kw_only=True)
class Sellers:
    """Offers of one model, best first as the gateway ranks them.

    `model_id` is what every order is for: a name may come to mean other files while work goes on.
    """

    model: str
    model_id: str
    offers: tuple[Offer, ...]

    @property
    def nodes(self) -> tuple[int, ...]:
        """Whose offers."""
        return tuple(offer.node_id for offer in self.offers)

    def ceilings(self, ask: Ask) -> tuple[int, int]:
        """The most an ask costs at the cheapest of them, and at the dearest."""
        payload = ask.payload(BLANK_MODEL)
        found = [ceiling_atoms(offer, payload) for offer in self.offers]
        return min(found), max(found)


async def sellers(client: AsyncWattline, ask: Ask, node_ids: Collection[int] = ()) -> Sellers:
    """Who can do an ask now and may be paid by this key; of `node_ids` only, where they are given.

    Raises:
        GatewayProblem: nobody, and why.
    """
    quotes = await Work(client.desk, client.pool, Books(client.desk)).quotes(ask)
    wanted = [quote for quote in quotes if not node_ids or quote.node_id in node_ids]
    deadline_ms = client.desk.now_ms() + ask.timeout_ms
    able = [q for q in wanted if q.eligible and await client.pool.reaches(q.node_id, deadline_ms)]
    if able:
        return Sellers(
            model=ask.model,
            model_id=to_hex(able[0].offer.model_id),
            offers=tuple(quote.offer for quote in able),
        )
    if node_ids and not wanted:
        listed = ", ".join(map(str, sorted(node_ids)))
        raise BadRequest(
            ErrorCode.UNKNOWN_NODE, f"{ask.model} is not offered by node {listed}.", hint="watt nodes"
        )
    reasons = sorted({quote.why_not for quote in wanted if quote.why_not})
    if reasons == [ErrorCode.UNSUPPORTED]:
        raise BadRequest(
            ErrorCode.UNSUPPORTED,
            f"{ask.model} is not offered for {ask.task}.",
            hint="watt models lists what each model is offered for.",
        )
    why = f" ({', '.join(reasons)})" if reasons else ""
    raise GatewayProblem(ErrorCode.NO_NODE, f"No node can do {ask.task} with {ask.model} now{why}.")

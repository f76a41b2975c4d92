"""Where an ask goes: ranked quotes, then one signed order with its money set aside."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.client.asks import Ask, quote_body
from marketplace.client.callbook import Budget, Call, CallBook, Spending, check_budget
from marketplace.client.desk import Desk, threaded
from marketplace.client.placed import Placed
from marketplace.client.quotes import Quote, ceiling_atoms, check_can_seal, check_offer
from marketplace.client.sessions import SessionPool
from marketplace.protocol import sealing
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace, ProviderFault
from marketplace.protocol.forecasts import DAY_SECONDS, HOUR_SECONDS, Forecast, forecast, spent_in
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.merkle import request_hash
from marketplace.protocol.messages import Order
from marketplace.protocol.payloads import encode_payload
from marketplace.protocol.sealed import BuyerSeal, reply_secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """One ask on its way; `call` where it is one call, whatever retries."""

    ask: Ask
    max_cost: str | None
    streamed: bool
    call: Call | None
    deadline_ms: int


class Ordering:
    """Signs orders for one key; never one that its call or its budget does not allow.

    Attributes:
        budget: most that all orders under its name may cost together; None: no such bound.
    """

    def __init__(self, desk: Desk, pool: SessionPool, calls: CallBook) -> None:
        self._desk, self._pool, self._calls = desk, pool, calls
        self.budget: Budget | None = None

    def spending(self) -> Spending:
        """How the budget stands."""
        if self.budget is None:
            return Spending(limit_atoms=None, spent_atoms=0)
        spent = self._calls.spent_atoms(self.budget.name)
        return Spending(limit_atoms=self.budget.limit_atoms, spent_atoms=spent)

    def forecast(self) -> Forecast:
        """How long the budget lasts at the rate of the last hour, or day."""
        now = self._desk.now_ms() // 1000
        since_ms = (now - DAY_SECONDS) * 1000
        bought = [] if self.budget is None else self._calls.spent_lately(self.budget.name, since_ms)
        moves = [(at_ms // 1000, atoms) for at_ms, atoms in bought]
        hour, day = (spent_in(moves, seconds, now) for seconds in (HOUR_SECONDS, DAY_SECONDS))
        return forecast(hour, day, left_atoms=self.spending().left_atoms, now=now, ends_at=None)

    async def quotes(self, ask: Ask, max_cost: str | None = None) -> list[Quote]:
        """Ranked quotes of the gateway, not yet verified. Charges nothing.

        Raises:
            ProviderFault: not readable, or for another model than the id that was asked for.
        """
        asked = quote_body(ask, max_cost, sealed=self._desk.seal)
        answer = await self._desk.gateway.post("/v1/quotes", asked)
        found = [Quote.from_json(row) for row in answer.get("quotes", [])]
        exact = ask.exact_model
        if exact and any(to_hex(quote.offer.model_id) != exact for quote in found):
            raise ProviderFault(
                ErrorCode.UNKNOWN_MODEL, "the gateway quotes another model than was asked for"
            )
        return found

    async def pick(self, errand: Errand, tried: set[int]) -> Quote | None:
        """The best quote of a node not tried yet; None when there is none. Raises `BadRequest`."""
        quotes = await self.quotes(errand.ask, errand.max_cost)
        able = [q for q in quotes if q.eligible and q.node_id not in tried]
        # Listed nodes first: to find out about any other takes questions to gateway and chain.
        for quote in sorted(able, key=lambda q: not self._pool.may_open(q.node_id)):
            if await self._pool.reaches(quote.node_id, errand.deadline_ms):
                return quote
        if able and not tried:
            return able[0]  # Signing for it says which nodes the key may pay.
        dear = [q.ceiling_atoms for q in quotes if q.why_not == ErrorCode.PRICE_ABOVE_MAX]
        if dear and not tried:
            raise _too_dear(min(dear), errand.ask.max_cost_atoms or 0)
        return None

    async def place(self, errand: Errand, quote: Quote) -> Placed:
        """A signed order under a verified offer, with its money set aside, kept before it leaves.

        Raises:
            LostRace: the call has an order already.
            BadRequest: too dear, or no session, or the budget does not allow it.
            ProviderFault: the offer does not hold, or nothing can be sealed to its node and has to be.
        """
        desk = self._desk
        node = await threaded(check_offer, quote, desk.domain, desk.chain, desk.now_ms())
        if desk.seal:
            check_can_seal(node, quote.node_id)
        payload = errand.ask.payload(to_hex(quote.offer.model_id))
        ceiling = ceiling_atoms(quote.offer, payload, quote.units_in_ceiling)
        if errand.ask.max_cost_atoms is not None and ceiling > errand.ask.max_cost_atoms:
            raise _too_dear(ceiling, errand.ask.max_cost_atoms)
        if self.budget is not None:
            # Before a session is opened for it; what counts is the look when the order is kept.
            check_budget(self.budget, self.spending().spent_atoms, ceiling)
        session, seq = await self._pool.seat(quote.node_id, node.epoch, ceiling, errand.deadline_ms)
        body, salt = encode_payload(payload), desk.around.random_bytes(32)
        hashed = request_hash(salt, body)
        reply = reply_secret(desk.key.secret, session.session_id, seq, hashed)
        order = Order(
            session_id=session.session_id,
            seq=seq,
            offer_hash=quote.offer.digest(desk.domain),
            request_hash=hashed,
            max_amount_atoms=ceiling,
            issued_at_ms=desk.now_ms(),
            deadline_ms=errand.deadline_ms,
            reply_key=sealing.public_key(reply),
        )
        seal = BuyerSeal.of(reply, node.encryption_key, order.digest(desk.domain)) if desk.seal else None
        placed = Placed(
            model=errand.ask.model,
            offer=quote.offer,
            offer_signature=quote.offer_signature,
            session=session,
            order=order,
            signature=desk.key.sign(order, desk.domain),
            salt=salt,
            payload=body,
            sealed=b"" if seal is None else seal.seal(salt, body),
            ceiling_atoms=ceiling,
            trace_id=desk.around.random_bytes(16).hex(),
        )
        self._keep(errand.call, placed)
        return placed

    def _keep(self, call: Call | None, placed: Placed) -> None:
        """Keeps an order before it leaves. One that must not leave gives its seat back."""
        order = placed.order
        if call is None:
            self._desk.journal.write_order(order, placed.signature)
            return
        try:
            self._calls.place(call, placed, self.budget)
        except (BadRequest, LostRace):
            self._desk.journal.end_seat(order.session_id, order.seq)
            raise


def _too_dear(ceiling: int, most: int) -> BadRequest:
    return BadRequest(
        ErrorCode.PRICE_ABOVE_MAX,
        f"No node will do this for {most} atoms; the cheapest asks {ceiling}.",
        ceiling_atoms=ceiling,
        max_atoms=most,
    )

"""Which offers fit, in which order, and why not the others. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from marketplace.protocol.errors import ErrorCode
from marketplace.protocol.messages import Offer
from marketplace.protocol.payloads import Payload, units_in_ceiling, units_out_ceiling
from marketplace.protocol.pricing import full_price_down
from marketplace.protocol.shares import draws

MAX_ATOMS = (1 << 63) - 1


class Offered(Protocol):
    """What a quote needs to know of a current offer and its node."""

    @property
    def node_id(self) -> int:
        """Whose offer."""

    @property
    def offer(self) -> Offer:
        """The signed prices."""

    @property
    def model_id(self) -> str:
        """The model, 0x-hex."""

    @property
    def model_name(self) -> str:
        """The name its node gives it."""

    @property
    def task(self) -> str:
        """`chat` or `embed`."""

    @property
    def canary_bps(self) -> int:
        """Above 0: on trial under its name, for this share (of 10,000) of the orders by that name."""

    @property
    def connected(self) -> bool:
        """Whether its node has a link."""

    @property
    def draining(self) -> bool:
        """Whether its node takes nothing new."""

    @property
    def free_slots(self) -> int:
        """Jobs its node could start now."""

    @property
    def queue_depth(self) -> int:
        """Jobs that wait at its node."""

    @property
    def stake_atoms(self) -> int:
        """Stake of its node's owner."""


L = TypeVar("L", bound=Offered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a request asks of a node.

    Attributes:
        units_in: most input units it can be billed for; `units_out` likewise.
        exact: whether `units_in` is just what it will be billed for, by a node's own count.
        choices: how often it is ordered; the caller's limit is for all of them together.
        max_cost_atoms: the caller's own limit; None for none.
        node_id: the only node wanted; None for any.
        tried: nodes that must not be asked again.
        offer_hash: the only offer wanted, for as long as it is valid; None for any current one.
    """

    task: str
    units_in: int
    units_out: int
    exact: bool = False
    choices: int = 1
    max_cost_atoms: int | None = None
    node_id: int | None = None
    tried: Collection[int] = ()
    offer_hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote(Generic[L]):
    """One offer for one request: the most all its choices can cost, and whether it can be taken now."""

    listing: L
    ceiling_atoms: int
    why_not: ErrorCode | None
    reason: str

    @property
    def eligible(self) -> bool:
        """Whether an order under this offer can be sent now."""
        return self.why_not is None


def need_of(
    payload: Payload,
    max_cost_atoms: int | None,
    node_id: int | None,
    tried: Collection[int] = (),
    counted: int | None = None,
    offer_hash: str | None = None,
) -> Need:
    """What a payload asks of a node; no node in `tried` is asked again.

    `counted` are its input units by a node's count; None leaves the bound in bytes.
    """
    return Need(
        task=payload.task,
        units_in=units_in_ceiling(payload) if counted is None else counted,
        exact=counted is not None,
        units_out=units_out_ceiling(payload),
        max_cost_atoms=max_cost_atoms,
        node_id=node_id,
        tried=tried,
        offer_hash=offer_hash,
    )


def ceiling_of(offer: Offer, payload: Payload) -> int:
    """The most a payload can cost under an offer."""
    return full_price_down(offer, units_in_ceiling(payload), units_out_ceiling(payload))


def resolve(model: str, listings: Sequence[Offered], ticket: bytes = b"") -> str | None:
    """The model id a name stands for: the one most connected nodes serve; ids stand for themselves.

    A version on trial under the name gets the share its nodes ask for, averaged over all nodes with the name;
    `ticket` decides, and an empty one is never on trial.
    """
    named = [listing for listing in listings if _named(model, listing)]
    live = [listing for listing in named if listing.connected] or named
    steady = [listing for listing in live if not listing.canary_bps] or live
    trials = [listing for listing in live if listing.canary_bps and listing.model_id != model]
    if ticket and trials:
        asked = {(item.model_id, item.node_id): item.canary_bps for item in trials}
        share_bps = sum(asked.values()) // len({item.node_id for item in live})
        steady = trials if draws(ticket, share_bps) else steady
    counts = Counter(model_id for model_id, _ in {(item.model_id, item.node_id) for item in steady})
    return min(counts, key=lambda model_id: (-counts[model_id], model_id)) if counts else None


def rank(listings: Sequence[L], need: Need, *, now_ms: int, min_stake_atoms: int) -> list[Quote[L]]:
    """Quotes, those that can be taken first; then by ceiling, queue and node id."""
    quotes = [_quote(item, need, now_ms, min_stake_atoms) for item in listings]
    quotes.sort(key=_order)
    return _with_reasons(quotes)


def first_asked(quotes: Sequence[Quote[L]]) -> L | None:
    """Whose offer would be taken, were it not for the price; None when nobody's."""
    able = (quote for quote in quotes if quote.why_not in (None, ErrorCode.PRICE_ABOVE_MAX))
    return next((quote.listing for quote in able), None)


def refusal(quotes: Sequence[Quote[L]], need: Need) -> tuple[ErrorCode, str]:
    """Why none of the quotes can be taken: the code and a sentence that says what would help."""
    if need.node_id is not None and all(quote.listing.node_id != need.node_id for quote in quotes):
        return ErrorCode.UNKNOWN_NODE, f"node {need.node_id} does not offer this model"
    causes = Counter(quote.why_not for quote in quotes)
    dear = [quote.ceiling_atoms for quote in quotes if quote.why_not is ErrorCode.PRICE_ABOVE_MAX]
    if dear and not causes[ErrorCode.NODE_BUSY]:
        return ErrorCode.PRICE_ABOVE_MAX, (
            f"the cheapest offer may cost {min(dear)} atoms, max_cost allows {need.max_cost_atoms}"
        )
    if causes[ErrorCode.UNSUPPORTED] and causes[ErrorCode.UNSUPPORTED] == len(quotes):
        return ErrorCode.UNSUPPORTED, f"this model does not do the task {need.task!r}"
    if causes[ErrorCode.NODE_BUSY]:
        return ErrorCode.NODE_BUSY, "every node with this model is draining"
    return ErrorCode.NO_NODE, "no node with this model is connected and has a valid offer"


def _named(model: str, listing: Offered) -> bool:
    return model in (listing.model_id, listing.model_name)


def _quote(item: L, need: Need, now_ms: int, min_stake_atoms: int) -> Quote[L]:
    ceiling = full_price_down(item.offer, need.units_in, need.units_out) * need.choices
    return Quote(
        listing=item,
        ceiling_atoms=ceiling,
        why_not=_why_not(item, need, ceiling, now_ms, min_stake_atoms),
        reason="",
    )


def _why_not(item: Offered, need: Need, ceiling: int, now_ms: int, min_stake_atoms: int) -> ErrorCode | None:
    most = MAX_ATOMS if need.max_cost_atoms is None else min(need.max_cost_atoms, MAX_ATOMS)
    rules = (
        (item.task != need.task, ErrorCode.UNSUPPORTED),
        (item.node_id in need.tried, ErrorCode.NODE_FAILED),
        (need.node_id is not None and item.node_id != need.node_id, ErrorCode.ORDER_MISDIRECTED),
        (item.offer.valid_until * 1000 <= now_ms, ErrorCode.OFFER_EXPIRED),
        (not item.connected or item.stake_atoms < min_stake_atoms, ErrorCode.NO_NODE),
        (item.draining, ErrorCode.NODE_BUSY),
        (ceiling > most, ErrorCode.PRICE_ABOVE_MAX),
    )
    return next((code for broken, code in rules if broken), None)


def _order(quote: Quote[L]) -> tuple[bool, bool, int, int, int]:
    listing = quote.listing
    # A full node comes last among those that can be taken: it would only queue the order.
    full = listing.free_slots == 0 and listing.queue_depth > 0
    return (not quote.eligible, full, quote.ceiling_atoms, listing.queue_depth, listing.node_id)


def _with_reasons(quotes: Sequence[Quote[L]]) -> list[Quote[L]]:
    able = [quote for quote in quotes if quote.eligible]
    if not able:
        return list(quotes)
    cheapest = min(able, key=lambda quote: quote.ceiling_atoms)
    fastest = min(able, key=lambda quote: (quote.listing.queue_depth, -quote.listing.free_slots))
    return [replace(quote, reason=_reason(quote, cheapest, fastest, len(able))) for quote in quotes]


def _reason(quote: Quote[L], cheapest: Quote[L], fastest: Quote[L], able: int) -> str:
    if not quote.eligible:
        return ""
    if able == 1:
        return "only one"
    if quote is cheapest:
        return "cheapest"
    return "fastest" if quote is fastest else "also able"

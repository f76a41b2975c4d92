"""Load offers → rank them. Writes nothing: a quote promises no more than its signed offer does."""

from __future__ import annotations

from dataclasses import dataclass

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.quoting import rules
from marketplace.store import aliases, offers
from marketplace.store.offers import Listing
from marketplace.store.tables import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotes:
    """A model id and its ranked quotes."""

    model_id: str
    model_name: str
    quotes: list[rules.Quote[Listing]]


def quote(
    tx: Tx, model: str, need: rules.Need, *, now_ms: int, min_stake_atoms: int, ticket: bytes = b""
) -> Quotes:
    """Ranked quotes for a model by id, by alias of the register, or by the name nodes give it.

    Args:
        tx: a read or write transaction.
        model: what was asked for.
        need: what of it.
        now_ms: Unix milliseconds.
        min_stake_atoms: least stake of a node that sells.
        ticket: names this asking; decides whether a name means a version on trial.

    Raises:
        BadRequest: nobody offers such a model, or not under the only offer wanted.
    """
    wanted = aliases.meaning(tx, model)
    listings = offers.listings(tx, wanted, need.offer_hash)
    if need.offer_hash and all(item.offer.valid_until * 1000 <= now_ms for item in listings):
        raise BadRequest(ErrorCode.OFFER_EXPIRED, "this offer has ended, or its node has withdrawn the model")
    model_id = rules.resolve(wanted, listings, ticket)
    if model_id is None:
        raise BadRequest(ErrorCode.UNKNOWN_MODEL, f"nobody offers a model called {model[:80]!r}")
    fitting = [item for item in listings if item.model_id == model_id]
    ranked = rules.rank(fitting, need, now_ms=now_ms, min_stake_atoms=min_stake_atoms)
    return Quotes(model_id=model_id, model_name=fitting[0].model_name, quotes=ranked)

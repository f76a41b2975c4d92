"""What nodes offer now, and what is heard of them. Chain columns of a node belong to `projection`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import RowMapping, Select, String, bindparam
from sqlalchemy import select as select_columns
from sqlmodel import Session, col, delete, select, update

from marketplace.protocol.hexes import from_hex
from marketplace.protocol.messages import Offer
from marketplace.store.plain import run, table_of
from marketplace.store.tables import NodeModelRow, NodeRow, OfferRow

_INT32 = 1 << 31  # ids count up from 1 on-chain; PostgreSQL refuses to look for larger ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """An offer, the model it is for, and the node as last heard."""

    node_id: int
    offer: Offer
    offer_hash: str
    signature: bytes
    model_id: str
    model_name: str
    task: str
    context_tokens: int
    loaded: bool
    canary_bps: int
    connected: bool
    draining: bool
    free_slots: int
    queue_depth: int
    epoch: int
    signer: str
    stake_atoms: int


def listings(tx: Session, model: str | None = None, offer_hash: str | None = None) -> list[Listing]:
    """Current offers, of one model id or name if `model` is given; by its hash a single one, current or not.

    None is of a model that its node no longer lists.
    """
    told = {"model": model, "offer": offer_hash}
    which = frozenset(name for name, value in told.items() if value is not None)
    rows = run(tx, _listings(which), {name: told[name] for name in which})
    return [_listing(row) for row in rows.mappings()]


def find(tx: Session, offer_hash: str) -> OfferRow | None:
    """An offer ever received, current or not."""
    return tx.get(OfferRow, offer_hash)


def read_offer(row: OfferRow) -> Offer:
    """The signed message of an offer row."""
    return _decode(row.message)


def replace(tx: Session, node_id: int, offers: Sequence[OfferRow], models: Sequence[NodeModelRow]) -> None:
    """Makes these the node's current offers and models; former offers stay known. Idempotent."""
    tx.exec(update(OfferRow).where(col(OfferRow.node_id) == node_id).values(current=False))
    tx.exec(delete(NodeModelRow).where(col(NodeModelRow.node_id) == node_id))
    for offer in offers:
        tx.merge(offer)
    tx.add_all(models)


def node(tx: Session, node_id: int) -> NodeRow | None:
    """A node by its id."""
    return tx.get(NodeRow, node_id) if node_id < _INT32 else None


def nodes(tx: Session) -> list[NodeRow]:
    """All nodes the chain knows, by id."""
    return list(tx.exec(select(NodeRow).order_by(col(NodeRow.node_id))))


def models_of(tx: Session, node_id: int) -> list[NodeModelRow]:
    """What a node says it serves."""
    rows = select(NodeModelRow).where(NodeModelRow.node_id == node_id).order_by(col(NodeModelRow.name))
    return list(tx.exec(rows))


def arrive(tx: Session, node_id: int, now_ms: int) -> None:
    """A node's link is up."""
    _set(tx, node_id, connected=True, last_seen_ms=now_ms)


def leave(tx: Session, node_id: int) -> None:
    """A node's link is gone."""
    _set(tx, node_id, connected=False)


def leave_all(tx: Session) -> None:
    """At start no link is up yet, whatever the last run wrote."""
    tx.exec(update(NodeRow).where(col(NodeRow.connected).is_(True)).values(connected=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """Load of a node by its heartbeat."""

    free_slots: int
    queue_depth: int
    loaded: frozenset[str]
    draining: bool


def beat(tx: Session, node_id: int, pulse: Pulse, now_ms: int) -> None:
    """Takes a heartbeat's load figures."""
    _set(
        tx,
        node_id,
        last_seen_ms=now_ms,
        free_slots=pulse.free_slots,
        queue_depth=pulse.queue_depth,
        draining=pulse.draining,
        connected=True,
    )
    for row in models_of(tx, node_id):
        row.loaded = row.model_id in pulse.loaded


def _set(tx: Session, node_id: int, **values: object) -> None:
    table = table_of(NodeRow)
    run(tx, update(table).where(table.c.node_id == node_id).values(values))


@cache
def _listings(by: frozenset[str]) -> Select[Any]:
    """Offers with what `Listing` tells of them. Built once: this runs for every order."""
    offer, serves, node = table_of(OfferRow).c, table_of(NodeModelRow).c, table_of(NodeRow).c
    same = (serves.node_id == offer.node_id) & (serves.model_id == offer.model_id)
    model = bindparam("model", type_=String)
    narrow = {
        "model": (serves.name == model) | (serves.model_id == model),
        "offer": offer.offer_hash == bindparam("offer"),
    }
    wanted = [narrow[name] for name in sorted(by)]
    if "offer" not in by:
        wanted.append(offer.current.is_(True))
    return (
        select_columns(
            *(offer.message, offer.offer_hash, offer.signature),
            *(serves.model_id, serves.name.label("model_name"), serves.task),
            *(serves.context_tokens, serves.loaded, serves.canary_bps),
            *(node.node_id, node.connected, node.draining, node.free_slots),
            *(node.queue_depth, node.epoch, node.signer, node.stake_atoms),
        )
        .join_from(table_of(OfferRow), table_of(NodeModelRow), same)
        .join(table_of(NodeRow), node.node_id == offer.node_id)
        .where(*wanted)
        .order_by(offer.node_id, offer.offer_hash)
    )


def _listing(row: RowMapping) -> Listing:
    fields = dict(row)
    return Listing(offer=_decode(fields.pop("message")), **fields)


@lru_cache(maxsize=4096)
def _decode(message: bytes) -> Offer:
    return Offer.decode(message)


def model_bytes(model_id: str) -> bytes:
    """32 bytes of a stored model id."""
    return from_hex(model_id, 32)

"""Signed offers; kept after they end, so that an order under an old one is still understood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlmodel import Field, col, func, select

from worker.ledger.base import Database, Table, big, blob
from worker.ledger.orders import UNFINISHED, OrderRow

_MOST_KNOWN: Final = 256


class OfferRow(Table, table=True):
    """One offer as signed."""

    __tablename__ = "offer"
    offer_hash: bytes = Field(sa_column=blob(primary_key=True))
    model_id: bytes = Field(sa_column=blob(index=True))
    message: bytes = Field(sa_column=blob())
    signature: bytes = Field(sa_column=blob())
    valid_until: int = Field(sa_column=big())


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOffer:
    """A stored offer; `message` decodes to `Offer`."""

    offer_hash: bytes
    model_id: bytes
    message: bytes
    signature: bytes
    valid_until: int


class Offers:
    """Offers by hash."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # An offer never changes, and every order names one of few.
        self._known: dict[bytes, HeldOffer] = {}

    def put(self, offer: HeldOffer) -> None:
        """Stores an offer. Idempotent."""
        with self._database.write() as session:
            if session.get(OfferRow, offer.offer_hash) is None:
                session.add(
                    OfferRow(
                        offer_hash=offer.offer_hash,
                        model_id=offer.model_id,
                        message=offer.message,
                        signature=offer.signature,
                        valid_until=offer.valid_until,
                    )
                )

    def get(self, offer_hash: bytes) -> HeldOffer | None:
        """The offer, or None when this node never made it."""
        known = self._known.get(offer_hash)
        if known is None:
            with self._database.read() as session:
                row = session.get(OfferRow, offer_hash)
            if row is None:
                return None
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            known = self._known[offer_hash] = _held(row)
        return known

    def standing(self, now: int) -> list[HeldOffer]:
        """Offers that still stand at `now` (Unix seconds), longest first."""
        query = select(OfferRow).where(OfferRow.valid_until > now).order_by(col(OfferRow.valid_until).desc())
        with self._database.read() as session:
            return [_held(row) for row in session.exec(query)]

    def last_end(self, model_id: bytes) -> int:
        """When the last offer of a model ends or ended, in Unix seconds; 0 when there never was one."""
        query = select(func.max(OfferRow.valid_until)).where(OfferRow.model_id == model_id)
        with self._database.read() as session:
            return int(session.exec(query).one() or 0)

    def unfinished(self, model_id: bytes) -> int:
        """How many orders under offers of a model have no receipt yet."""
        query = (
            select(func.count())
            .select_from(OrderRow)
            .join(OfferRow, col(OfferRow.offer_hash) == col(OrderRow.offer_hash))
            .where(OfferRow.model_id == model_id, col(OrderRow.state).in_(UNFINISHED))
        )
        with self._database.read() as session:
            return int(session.exec(query).one())


def _held(row: OfferRow) -> HeldOffer:
    return HeldOffer(
        offer_hash=row.offer_hash,
        model_id=row.model_id,
        message=row.message,
        signature=row.signature,
        valid_until=row.valid_until,
    )

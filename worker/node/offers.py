"""Signed offers of the models this node serves; renewed at half their life."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.messages import Offer
from marketplace.protocol.signing import Signer
from marketplace.protocol.wire import OfferedModel, Offers, Signed
from worker.ledger import HeldOffer, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one model costs, in atoms; names as in `Offer`."""

    price_per_job_atoms: int
    price_in_per_million_atoms: int
    price_out_per_million_atoms: int
    max_latency_ms: int = 0
    late_discount_bps: int = 0
    max_millijoules_per_million_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model jobs may be for, as an infer process reported it.

    Attributes:
        source: the settings' name whose price holds.
        canary_bps: above 0 while it is on trial under its name, for that share of 10,000.
        offered: False while it only finishes what was offered before.
    """

    source: str
    model_id: bytes
    name: str
    task: str
    context_tokens: int
    canary_bps: int = 0
    offered: bool = True


class OfferBook:
    """Makes offers and remembers the ones made."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        signer: Signer,
        domain: Domain,
        node_id: int,
        prices: Mapping[str, Price],
        valid_seconds: int,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        """`prices` are by the name a model has in the settings."""
        self._ledger = ledger
        self._signer = signer
        self._domain = domain
        self._node_id = node_id
        self._prices = prices
        self._valid_seconds = valid_seconds
        self._now_ms = now_ms
        self._random = random

    def current(self, served: Sequence[ServedModel]) -> Offers:
        """One standing offer for every priced model, signed anew past half its life."""
        priced = [model for model in served if model.offered and model.source in self._prices]
        standing = self._ledger.offers.standing(self._now_ms() // 1000 + self._valid_seconds // 2)
        offers = [self._reuse(model, standing) or self._make(model) for model in priced]
        return Offers(
            offers=[Signed(message=held.message, signature=held.signature) for held in offers],
            models=[
                OfferedModel(
                    model_id=model.model_id,
                    name=model.name,
                    task=model.task,
                    context_tokens=model.context_tokens,
                    loaded=True,
                    canary_bps=model.canary_bps,
                )
                for model in priced
            ],
        )

    def _reuse(self, model: ServedModel, standing: Sequence[HeldOffer]) -> HeldOffer | None:
        for held in standing:
            offer = Offer.decode(held.message)
            salt, until = offer.salt, offer.valid_until
            # A price changed in the settings must not live on in an old offer.
            if offer == self._offer(model, salt, until):
                return held
        return None

    def _make(self, model: ServedModel) -> HeldOffer:
        offer = self._offer(model, self._random(32), self._now_ms() // 1000 + self._valid_seconds)
        held = HeldOffer(
            offer_hash=offer.digest(self._domain),
            model_id=model.model_id,
            message=offer.encode(),
            signature=self._signer.sign(offer, self._domain),
            valid_until=offer.valid_until,
        )
        # Stored before it is shown: an order under it must find it, whatever happens to this process.
        self._ledger.offers.put(held)
        return held

    def _offer(self, model: ServedModel, salt: bytes, valid_until: int) -> Offer:
        price = self._prices[model.source]
        return Offer(
            node_id=self._node_id,
            model_id=model.model_id,
            price_per_job_atoms=price.price_per_job_atoms,
            price_in_per_million_atoms=price.price_in_per_million_atoms,
            price_out_per_million_atoms=price.price_out_per_million_atoms,
            max_latency_ms=price.max_latency_ms,
            late_discount_bps=price.late_discount_bps,
            max_millijoules_per_million_out=price.max_millijoules_per_million_out,
            valid_until=valid_until,
            salt=salt,
        )

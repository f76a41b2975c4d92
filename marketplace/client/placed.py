"""A signed order with all that sends it again, and who keeps it from before it leaves until it is paid."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Protocol, Self

from marketplace.client.bundle import Bundle, decode_base64, signed_message
from marketplace.client.journal import Journal, Session
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.messages import Offer, Order, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One signed order and all that its receipt will be checked against.

    Attributes:
        model: as it was asked for.
        trace_id: the job's; sent again with it, so that one job has one trace.
        sealed: the request as its node alone opens it; empty for an order that is sent in plain.
    """

    model: str
    offer: Offer
    offer_signature: bytes
    session: Session
    order: Order
    signature: bytes
    salt: bytes
    payload: bytes
    ceiling_atoms: int
    trace_id: str
    sealed: bytes = b""

    def to_json(self) -> dict[str, Any]:
        """The form `from_json` reads; the session is named, for the journal has it."""
        return {
            "model": self.model,
            "offer": {"message": to_hex(self.offer.encode()), "signature": to_hex(self.offer_signature)},
            "session_id": to_hex(self.session.session_id),
            "order": {"message": to_hex(self.order.encode()), "signature": to_hex(self.signature)},
            "salt": to_hex(self.salt),
            "payload": base64.b64encode(self.payload).decode(),
            "ceiling_atoms": str(self.ceiling_atoms),
            "trace_id": self.trace_id,
            "sealed": base64.b64encode(self.sealed).decode(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any], journal: Journal) -> Self:
        """An order that was kept, with its session as the journal knows it.

        Raises:
            BadRequest: not readable, or of a session of another journal.
        """
        try:
            session = journal.session(from_hex(data["session_id"], 32))
            offer, offer_signature = signed_message(Offer, data["offer"])
            order, signature = signed_message(Order, data["order"])
            salt, payload = from_hex(data["salt"], 32), decode_base64(data["payload"])
            sealed = decode_base64(data.get("sealed", ""))
            model, trace_id, ceiling = str(data["model"]), str(data["trace_id"]), int(data["ceiling_atoms"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST, f"a kept order cannot be read: {error}", hint="Begin anew."
            ) from error
        if session is None:
            raise BadRequest(
                ErrorCode.UNKNOWN_SESSION,
                f"session {data['session_id']} of a kept order is not in this journal",
                hint="Go on with the key and the journal that began it.",
            )
        return cls(
            model=model,
            offer=offer,
            offer_signature=offer_signature,
            session=session,
            order=order,
            signature=signature,
            salt=salt,
            payload=payload,
            ceiling_atoms=ceiling,
            trace_id=trace_id,
            sealed=sealed,
        )

    def body(self) -> dict[str, Any]:
        """Body of `POST /v1/jobs`; of a sealed order nothing else tells what is asked."""
        signed = {"order": self.order.to_json(), "signature": to_hex(self.signature), "stream": True}
        if self.sealed:
            return signed | {"sealed": base64.b64encode(self.sealed).decode()}
        return signed | {
            "salt": to_hex(self.salt),
            "payload": base64.b64encode(self.payload).decode(),
        }

    def bundle(self, data: dict[str, Any], chunks: list[bytes], domain: Domain) -> Bundle:
        """The node's receipt and annex beside what we signed and received ourselves.

        Raises:
            ProviderFault: the receipt cannot be read.
        """
        try:
            receipt, signature = signed_message(Receipt, data["receipt"])
            annex = decode_base64(data["annex"])
        except (KeyError, TypeError, ValueError) as error:
            raise ProviderFault(ErrorCode.RECEIPT_INVALID, f"the receipt cannot be read: {error}") from error
        return Bundle(
            domain=domain,
            offer=self.offer,
            offer_signature=self.offer_signature,
            order=self.order,
            order_signature=self.signature,
            key=self.session.key,
            receipt=receipt,
            receipt_signature=signature,
            annex=annex,
            salt=self.salt,
            payload=self.payload,
            chunks=tuple(chunks),
            node_id=self.session.node_id,
            signer=self.session.signer,
            epoch=self.session.key_epoch,
            settlement=None,
            trace_id=str(data.get("trace_id") or self.trace_id),
            job_id=str(data.get("job_id") or ""),
            receipt_id=str(data.get("id") or data.get("receipt_id") or ""),
        )


class Keep(Protocol):
    """Keeps orders on disk for who must not buy twice. What it raises stops the order where it is."""

    def placed(self, placed: Placed) -> None:
        """Signed; it has not left yet."""

    def answered(self, placed: Placed, bundle: Bundle) -> None:
        """Its receipt holds and says that there is an answer; no voucher covers it yet."""

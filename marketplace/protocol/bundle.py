"""The offline bundle of a receipt: everything needed to check one job without asking anybody."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from marketplace.protocol.eip712 import Domain, Message
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import checksum, from_hex, to_hex
from marketplace.protocol.messages import Offer, Order, Receipt

VERSION: Final = 1
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The transaction said to have paid the job."""

    tx_hash: bytes
    block_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One job's evidence.

    Attributes:
        key: who ordered; "" where the bundle does not name it.
        signer: the node's signing key in `epoch`, as claimed; the chain knows.
        receipt_id: "" where the bundle does not name it.
        job_id: the gateway's label; nobody signs it and it proves nothing.
    """

    domain: Domain
    offer: Offer
    offer_signature: bytes
    order: Order
    order_signature: bytes
    key: str
    receipt: Receipt
    receipt_signature: bytes
    annex: bytes
    salt: bytes
    payload: bytes
    chunks: tuple[bytes, ...]
    node_id: int
    signer: str
    epoch: int
    settlement: Settlement | None
    trace_id: str
    job_id: str
    receipt_id: str

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Bundle of `GET /v1/receipts/{id}`.

        Raises:
            BadRequest: missing or malformed fields, or another version.
        """
        try:
            return cls(**_read(data))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise BadRequest(ErrorCode.INVALID_REQUEST, f"not a receipt bundle: {what}") from error

    def to_json(self) -> dict[str, Any]:
        """The form `from_json` reads, and `watt receipt verify` too."""
        settled = self.settlement
        return {
            "version": VERSION,
            "id": self.receipt_id,
            "job_id": self.job_id,
            "trace_id": self.trace_id,
            "domain": {"chain_id": self.domain.chain_id, "escrow": self.domain.escrow},
            "offer": _signed(self.offer, self.offer_signature),
            "order": _signed(self.order, self.order_signature),
            "key": self.key,
            "receipt": _signed(self.receipt, self.receipt_signature),
            "fields": self.receipt.to_json(),
            "annex": _base64(self.annex),
            "salt": to_hex(self.salt),
            "request_payload": _base64(self.payload),
            "chunks": [_base64(chunk) for chunk in self.chunks],
            "node": {"node_id": self.node_id, "signer": self.signer, "epoch": self.epoch},
            "settlement": settled and {"tx_hash": to_hex(settled.tx_hash), "block": settled.block_number},
        }


def signed_message(kind: type[M], data: Any) -> tuple[M, bytes]:
    """Message and signature of `{message, signature}`; the message as bytes or as named fields.

    Raises:
        ValueError: malformed.
    """
    message = data["message"]
    read = kind.from_json(message) if isinstance(message, dict) else kind.decode(from_hex(_text(message)))
    return read, from_hex(_text(data["signature"]))


def decode_base64(text: Any) -> bytes:
    """Bytes of strict base64. Raises `ValueError`."""
    raw = base64.b64decode(_text(text), validate=True)
    # Spare bits in the last digit would let two texts stand for one value.
    if base64.b64encode(raw).decode() != text:
        raise ValueError("base64 is not in its canonical form")
    return raw


def _read(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict) or data["version"] != VERSION or isinstance(data["version"], bool):
        raise ValueError(f"version must be {VERSION}")
    if data.get("sealed"):
        raise ValueError("it is sealed; only the key that ordered opens it (`Wattline.receipt`)")
    offer, offer_signature = signed_message(Offer, data["offer"])
    order, order_signature = signed_message(Order, data["order"])
    receipt, receipt_signature = signed_message(Receipt, data["receipt"])
    if data.get("fields") is not None and data["fields"] != receipt.to_json():
        raise ValueError("the receipt's fields in plain are not those that were signed")
    node = data["node"]
    return {
        "domain": Domain(_count(data["domain"]["chain_id"]), checksum(_text(data["domain"]["escrow"]))),
        "offer": offer,
        "offer_signature": offer_signature,
        "order": order,
        "order_signature": order_signature,
        "key": checksum(_text(data["key"])) if data.get("key") else "",
        "receipt": receipt,
        "receipt_signature": receipt_signature,
        "annex": decode_base64(data["annex"]),
        "salt": from_hex(_text(data["salt"]), 32),
        "payload": decode_base64(data["request_payload"]),
        "chunks": tuple(decode_base64(chunk) for chunk in _items(data["chunks"])),
        "node_id": _count(node["node_id"]),
        "signer": checksum(_text(node["signer"])),
        "epoch": _count(node["epoch"]),
        "settlement": _settlement(data.get("settlement")),
        "trace_id": _text(data["trace_id"]),
        "job_id": _text(data.get("job_id", "")),
        "receipt_id": _text(data.get("id", data.get("receipt_id", ""))),
    }


def _settlement(data: Any) -> Settlement | None:
    if data is None:
        return None
    return Settlement(tx_hash=from_hex(_text(data["tx_hash"]), 32), block_number=_count(data["block"]))


def _items(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise _malformed("chunks must be a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _malformed(f"expected text, got {type(value).__name__}")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"expected a whole number, got {value!r}")
    return value


def _malformed(what: str) -> ValueError:
    return ValueError(what)


def _signed(message: Message, signature: bytes) -> dict[str, str]:
    return {"message": to_hex(message.encode()), "signature": to_hex(signature)}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

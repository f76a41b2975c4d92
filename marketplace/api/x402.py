"""x402 version 2 on the wire: three headers of base64 JSON, and nothing else.

Source: the x402 specification v2 (2025-12), scheme `exact` on EVM with EIP-3009.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from marketplace.chain.till import Paid
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import checksum, from_hex, to_hex
from marketplace.protocol.quotes import Quote
from marketplace.protocol.tokens import TokenDomain

VERSION: Final = 2
SCHEME: Final = "exact"
PAYMENT_REQUIRED: Final = "PAYMENT-REQUIRED"
PAYMENT_SIGNATURE: Final = "PAYMENT-SIGNATURE"
PAYMENT_RESPONSE: Final = "PAYMENT-RESPONSE"
IDENTIFIER: Final = "payment-identifier"
_MOST_HEADER_BYTES: Final = 16_384
_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_UINT256: Final = (1 << 256) - 1
_IDENTIFIER_INFO: Final = {"required": False}
_IDENTIFIER_SCHEMA: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "required": {"type": "boolean"},
        "id": {"type": "string", "minLength": 16, "maxLength": 128, "pattern": "^[A-Za-z0-9_-]+$"},
    },
    "required": ["required"],
}


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, strict=True)


class QuoteHint(_Wire):
    """What the payer sends back of a quote, beside the request itself."""

    offer: str
    node: int
    pay_before: int
    salt: str


class _Extra(_Wire):
    quote: QuoteHint


class _Accepted(_Wire):
    scheme: str
    network: str
    asset: str
    amount: str
    pay_to: str
    extra: _Extra


class _Authorization(_Wire):
    sender: str = Field(alias="from")
    to: str
    value: str
    valid_after: str
    valid_before: str
    nonce: str


class _Payload(_Wire):
    authorization: _Authorization
    signature: str


class _Signed(_Wire):
    x402_version: int = Field(alias="x402Version")
    accepted: _Accepted
    payload: _Payload
    extensions: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A payment as it was sent: where to, for which quote, and the authorization."""

    receiver: str
    offer_hash: str
    pay_before: int
    salt: bytes
    paid: Paid
    identifier: str | None


def read(header: str, network: str, asset: str) -> Sent:
    """The payment of a PAYMENT-SIGNATURE header.

    Raises:
        BadRequest: not readable, or of another scheme, network or token than is accepted here.
    """
    try:
        signed = _Signed.model_validate(_decoded(header))
        _check(signed, network, asset)
        return _sent(signed)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _malformed(f"{where}: {first['msg']}") from error
    except ValueError as error:
        raise _malformed(str(error)) from error


def requirements(quote: Quote, receiver: str, token: TokenDomain, window_seconds: int) -> dict[str, Any]:
    """The one way to pay a quote, as an entry of `accepts`."""
    hint = QuoteHint(
        offer=to_hex(quote.offer_hash),
        node=quote.node_id,
        pay_before=quote.pay_before,
        salt=to_hex(quote.salt),
    )
    return terms_of(token, window_seconds) | {
        "amount": str(quote.amount_atoms),
        "payTo": receiver,
        "extra": {"name": token.name, "version": token.version, "quote": hint.model_dump(by_alias=True)},
    }


def terms_of(token: TokenDomain, window_seconds: int) -> dict[str, Any]:
    """What every payment here has in common."""
    return {
        "scheme": SCHEME,
        "network": network_of(token.chain_id),
        "asset": token.token,
        "maxTimeoutSeconds": window_seconds,
        "extra": {"name": token.name, "version": token.version},
    }


def required(url: str, description: str, accepts: dict[str, Any], error: str) -> str:
    """A PAYMENT-REQUIRED header."""
    return encode(
        {
            "x402Version": VERSION,
            "error": error,
            "resource": {"url": url, "description": description, "mimeType": "application/json"},
            "accepts": [accepts],
            "extensions": {IDENTIFIER: {"info": _IDENTIFIER_INFO, "schema": _IDENTIFIER_SCHEMA}},
        }
    )


def settled(network: str, payer: str, tx_hash: str | None, amount_atoms: int, **extra: Any) -> dict[str, Any]:
    """What a PAYMENT-RESPONSE says of a payment that was taken."""
    return {
        "success": True,
        "transaction": tx_hash or "",
        "network": network,
        "payer": payer,
        "amount": str(amount_atoms),
        "extra": extra,
    }


def not_settled(network: str, reason: str) -> dict[str, Any]:
    """What a PAYMENT-RESPONSE says of a payment that was not taken."""
    return {"success": False, "errorReason": reason[:300], "transaction": "", "network": network}


def network_of(chain_id: int) -> str:
    """CAIP-2 name of a chain."""
    return f"eip155:{chain_id}"


def encode(data: dict[str, Any]) -> str:
    """A header's text."""
    return base64.b64encode(json.dumps(data, separators=(",", ":")).encode()).decode()


def _check(signed: _Signed, network: str, asset: str) -> None:
    accepted, given = signed.accepted, signed.payload.authorization
    if signed.x402_version != VERSION:
        raise ValueError(f"x402Version must be {VERSION}")
    wanted = {"scheme": SCHEME, "network": network, "asset": asset.lower()}
    got = {"scheme": accepted.scheme, "network": accepted.network, "asset": accepted.asset.lower()}
    if got != wanted:
        raise ValueError(f"only {wanted} is accepted")
    if _address(given.to) != _address(accepted.pay_to) or given.value != accepted.amount:
        raise ValueError("the authorization is not to payTo, or not of amount")


def _sent(signed: _Signed) -> Sent:
    hint = signed.accepted.extra.quote
    return Sent(
        receiver=_address(signed.accepted.pay_to),
        offer_hash=to_hex(from_hex(hint.offer, 32)),
        pay_before=_number(str(hint.pay_before)),
        salt=from_hex(hint.salt, 32),
        paid=_paid(signed.payload),
        identifier=_identifier(signed.extensions),
    )


def _decoded(header: str) -> Any:
    if len(header) > _MOST_HEADER_BYTES:
        raise ValueError(f"the header is longer than {_MOST_HEADER_BYTES} bytes")
    try:
        # Not json's own parser: with the recursion limit that web3 sets, deep brackets overrun its stack.
        return from_json(base64.b64decode(header, validate=True), allow_inf_nan=False)
    except (binascii.Error, ValueError) as error:
        raise ValueError("the header is not base64 of JSON") from error


def _paid(payload: _Payload) -> Paid:
    given = payload.authorization
    return Paid(
        payer=_address(given.sender),
        value_atoms=_number(given.value),
        valid_after=_number(given.valid_after),
        valid_before=_number(given.valid_before),
        nonce=from_hex(given.nonce, 32),
        signature=from_hex(payload.signature),
    )


def _identifier(extensions: dict[str, Any] | None) -> str | None:
    found = (extensions or {}).get(IDENTIFIER)
    info = found.get("info") if isinstance(found, dict) else None
    name = info.get("id") if isinstance(info, dict) else None
    if name is not None and not (isinstance(name, str) and _ID.fullmatch(name)):
        raise ValueError(f"{IDENTIFIER}: an id is 16 to 128 letters, digits, - and _")
    return name


def _address(text: str) -> str:
    return checksum(from_hex(text, 20))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 78 and int(text) <= _UINT256):
        raise ValueError(f"{text[:24]!r} is not a number of 256 bits")
    return int(text)


def _malformed(detail: str) -> BadRequest:
    return BadRequest(ErrorCode.MALFORMED_PAYMENT, detail)

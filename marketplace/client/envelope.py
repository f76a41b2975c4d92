"""Sealed orders from the buyer's side: the request closed to its node, and what comes back opened."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from marketplace.client.bundle import decode_base64, signed_message
from marketplace.client.gateway import Event
from marketplace.protocol import sealing
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Order
from marketplace.protocol.sealed import BuyerSeal, is_sealed, node_key_of, reply_secret
from marketplace.protocol.signing import Signer


def seal_of(order: Order, sealed: bytes, key: Signer, domain: Domain) -> BuyerSeal | None:
    """Opens what belongs to an order that this key signed and sealed; None for a plain one.

    Raises:
        BadRequest: `seal_unusable`: another key did, or these bytes are no sealed request.
    """
    if not sealed:
        return None
    reply = reply_secret(key.secret, order.session_id, order.seq, order.request_hash)
    if sealing.public_key(reply) != order.reply_key:
        raise BadRequest(ErrorCode.SEAL_UNUSABLE, "it was sealed for another key than this one")
    return BuyerSeal.of(reply, node_key_of(sealed), order.digest(domain))


def opened_event(event: Event, seal: BuyerSeal | None) -> Event:
    """An event of a sealed order as it would be of a plain one.

    Raises:
        ProviderFault: it does not open: altered, out of its place, or not sealed at all.
    """
    if seal is None:
        return event
    try:
        if event.name == "chunk":
            body = seal.responses.open_chunk(event.data["index"], decode_base64(event.data["body"]))
            return replace(event, data={**event.data, "body": _base64(body)})
        if event.name == "receipt":
            return replace(event, data=_opened(event.data, seal))
    except (BadRequest, KeyError, TypeError, ValueError, OverflowError) as error:
        why = error.detail if isinstance(error, BadRequest) else str(error)
        raise ProviderFault(
            ErrorCode.RECEIPT_INVALID, f"a sealed {event.name} cannot be opened: {why}"
        ) from error
    return event


def opened_bundle(data: dict[str, Any], key: Signer, domain: Domain) -> dict[str, Any]:
    """A receipt's bundle as the gateway has it, opened with the key that ordered; a plain one as it is.

    Raises:
        BadRequest: another key ordered, or it does not open.
    """
    if not data.get("sealed"):
        return data
    try:
        order, _ = signed_message(Order, data["order"])
        seal = seal_of(order, decode_base64(data["request_payload"]), key, domain)
        return data if seal is None else _opened(data, seal)
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"not a receipt bundle: {error}") from error


def _opened(data: dict[str, Any], seal: BuyerSeal) -> dict[str, Any]:
    salt, payload = seal.open(decode_base64(data["request_payload"]))
    annex, responses = decode_base64(data["annex"]), seal.responses
    plain = {
        "salt": to_hex(salt),
        "request_payload": _base64(payload),
        "annex": _base64(responses.open_annex(annex) if is_sealed(annex) else annex),
        "chunks": [
            _base64(responses.open_chunk(index, decode_base64(chunk)))
            for index, chunk in enumerate(data["chunks"])
        ],
    }
    return {name: value for name, value in data.items() if name != "sealed"} | plain


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

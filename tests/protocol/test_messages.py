"""Messages: golden vectors, canonical bytes, refusal of what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marketplace.protocol.eip712 import Domain, Message, fields_of, type_string
from marketplace.protocol.hexes import from_hex
from marketplace.protocol.messages import ON_CHAIN, Close, Offer, Open, Order, Receipt, Voucher
from marketplace.protocol.pricing import amount_due

VECTORS = Path(__file__).parents[1] / "vectors"
GOLDEN: dict[str, Any] = json.loads((VECTORS / "messages.json").read_text())
PRICING: dict[str, list[str]] = json.loads((VECTORS / "pricing.json").read_text())
DOMAIN = Domain(GOLDEN["domain"]["chainId"], GOLDEN["domain"]["escrow"])


def rows(message: type[Message]) -> list[tuple[bytes, bytes]]:
    found = GOLDEN[message.__name__[0].lower() + message.__name__[1:]]
    return [(from_hex(e), from_hex(d)) for e, d in zip(found["encoded"], found["digests"], strict=True)]


@pytest.mark.parametrize("message", ON_CHAIN)
def test_digest_equals_eth_account_for_every_vector(message: type[Message]) -> None:
    for encoded, digest in rows(message):
        assert message.decode(encoded).digest(DOMAIN) == digest


@pytest.mark.parametrize("message", ON_CHAIN)
def test_canonical_bytes_and_json_round_trip(message: type[Message]) -> None:
    for encoded, _ in rows(message):
        value = message.decode(encoded)
        assert value.encode() == encoded
        assert message.from_json(json.loads(json.dumps(value.to_json()))) == value


def test_vectors_hold_enough_receipts_and_vouchers() -> None:
    assert len(rows(Receipt)) >= 500
    assert len(rows(Voucher)) >= 500


def test_type_string_reads_as_the_protocol_writes_it() -> None:
    assert type_string(Close) == "Close(bytes32 sessionId,uint128 minPaid)"


def test_digest_depends_on_chain_and_escrow() -> None:
    close = Close(session_id=bytes(32), min_paid_atoms=1)
    other_chain = Domain(DOMAIN.chain_id + 1, DOMAIN.escrow)
    other_escrow = Domain(DOMAIN.chain_id, "0x" + "00" * 19 + "01")
    assert len({close.digest(d) for d in (DOMAIN, other_chain, other_escrow)}) == 3


@pytest.mark.parametrize(
    "values",
    [
        {"session_id": bytes(31), "min_paid_atoms": 1},
        {"session_id": bytes(32), "min_paid_atoms": -1},
        {"session_id": bytes(32), "min_paid_atoms": 1 << 128},
        {"session_id": bytes(32), "min_paid_atoms": True},
        {"session_id": "0x", "min_paid_atoms": 1},
    ],
)
def test_message_refuses_values_that_do_not_fit(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"sessionId|minPaid"):
        Close(**values)


def test_address_must_be_checksummed() -> None:
    terms = Open.decode(rows(Open)[0][0])
    with pytest.raises(ValueError, match="checksummed"):
        Open(**{a: getattr(terms, a) for a in fields_of(Open)} | {"buyer": terms.buyer.lower()})


def test_decode_refuses_other_lengths_and_dirty_bits() -> None:
    encoded = rows(Open)[0][0]
    with pytest.raises(ValueError, match="bytes long"):
        Open.decode(encoded + b"\0")
    with pytest.raises(ValueError, match="dirty high bits"):
        Open.decode(b"\x01" + encoded[1:])
    with pytest.raises(ValueError, match="must fit"):
        Close.decode(bytes(32) + b"\x01" + bytes(31))


@pytest.mark.parametrize("change", [{"extra": 1}, {"minPaid": 5}, {"minPaid": "0x5"}, {"minPaid": "\u0661"}])
def test_json_is_closed_and_strict(change: dict[str, Any]) -> None:
    data = Close(session_id=bytes(32), min_paid_atoms=1).to_json()
    with pytest.raises(ValueError, match=r"fields|minPaid"):
        Close.from_json(data | change)


def test_prices_equal_the_vectors() -> None:
    offer_size = 32 * len(fields_of(Offer))
    order_size = 32 * len(fields_of(Order))
    for text, amount in zip(PRICING["encoded"], PRICING["amounts"], strict=True):
        data = from_hex(text)
        tail = data[offer_size + order_size :]
        units_in, units_out, finished, status = (
            int.from_bytes(tail[i : i + 32], "big") for i in range(0, 128, 32)
        )
        due = amount_due(
            Offer.decode(data[:offer_size]),
            Order.decode(data[offer_size : offer_size + order_size]),
            units_in=units_in,
            units_out=units_out,
            finished_at_ms=finished,
            status=status,
        )
        assert due == int(amount, 16)

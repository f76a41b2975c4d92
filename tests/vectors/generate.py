"""Writes the golden vectors that Solidity and Python tests read: `python -m tests.vectors.generate`.

Digests come from eth-account's encoder, not from our own packing, so that both sides are judged by a third.
Seeded: the same files every time.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from eth_abi import encode as abi_encode
from eth_account.messages import encode_typed_data
from eth_utils import keccak, to_checksum_address

from marketplace.protocol.eip712 import Field, Message, fields_of
from marketplace.protocol.messages import ON_CHAIN, Offer, Order, Receipt, Voucher

HERE = Path(__file__).parent
ESCROW = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
CHAIN_ID = 31337
COUNTS = {Receipt: 600, Voucher: 600}
PRICINGS = 600


def main() -> None:
    rng = random.Random(20261123)  # noqa: S311 - test data
    write("messages.json", {"domain": {"chainId": CHAIN_ID, "escrow": ESCROW}} | messages(rng))
    write("pricing.json", pricing(rng))


def messages(rng: random.Random) -> dict[str, Any]:
    return {m.__name__[0].lower() + m.__name__[1:]: rows(m, rng) for m in ON_CHAIN}


def rows(message: type[Message], rng: random.Random) -> dict[str, list[str]]:
    values = [random_values(message, rng) for _ in range(COUNTS.get(message, 120))]
    return {
        "encoded": ["0x" + encoded(message, v).hex() for v in values],
        "digests": ["0x" + digest(message, v).hex() for v in values],
    }


def random_values(message: type[Message], rng: random.Random) -> dict[str, Any]:
    return {f.name: random_value(f, rng) for f in fields_of(message).values()}


def random_value(field: Field, rng: random.Random) -> Any:
    if field.kind == "bytes32":
        return rng.choice([rng.randbytes(32), rng.randbytes(32), bytes(32), b"\xff" * 32])
    if field.kind == "address":
        return to_checksum_address(rng.randbytes(20))
    top = (1 << field.bits) - 1
    return rng.choice([rng.randint(0, top), rng.randint(0, min(top, 10**9)), 0, 1, top])


def encoded(message: type[Message], values: dict[str, Any]) -> bytes:
    kinds = [f.kind for f in fields_of(message).values()]
    return abi_encode(kinds, list(values.values()))


def digest(message: type[Message], values: dict[str, Any]) -> bytes:
    domain = {"name": "Wattline", "version": "1", "chainId": CHAIN_ID, "verifyingContract": ESCROW}
    kinds = [{"name": f.name, "type": f.kind} for f in fields_of(message).values()]
    signable = encode_typed_data(domain, {message.__name__: kinds}, values)
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


def pricing(rng: random.Random) -> dict[str, list[str]]:
    cases = [pricing_case(rng) for _ in range(PRICINGS)]
    return {"encoded": [c[0] for c in cases], "amounts": [c[1] for c in cases]}


def pricing_case(rng: random.Random) -> tuple[str, str]:
    """The price worked out here once more, straight from the sentence in PROTOCOL §3."""
    offer, order = random_values(Offer, rng), random_values(Order, rng)
    for name in ("pricePerJob", "priceInPerMillion", "priceOutPerMillion"):
        offer[name] = rng.choice([0, 1, rng.randint(0, 10**7), rng.randint(0, 10**13)])
    offer["maxLatencyMs"] = rng.choice([0, 1, 500, 60_000])
    offer["lateDiscountBps"] = rng.choice([0, 1, 2_500, 9_999, 10_000, 12_000])
    order["maxAmount"] = rng.choice([0, 1, 10**6, 10**30, (1 << 128) - 1])
    order["issuedAtMs"] = 1_800_000_000_000
    order["deadlineMs"] = order["issuedAtMs"] + rng.choice([1, 499, 30_000, 120_000])
    units_in, units_out = (rng.choice([0, 1, rng.randint(0, 10**6), (1 << 64) - 1]) for _ in range(2))
    finished = order["issuedAtMs"] + rng.choice([-5, 0, 1, 499, 500, 501, 29_999, 30_000, 30_001, 60_001])
    status = rng.choice([0, 1, 1, 1, 2])
    cost = (
        offer["pricePerJob"]
        + (units_in * offer["priceInPerMillion"] + units_out * offer["priceOutPerMillion"]) // 10**6
    )
    if 0 < offer["maxLatencyMs"] < finished - order["issuedAtMs"]:
        cost -= cost * min(10_000, offer["lateDiscountBps"]) // 10_000
    due = 0 if status == 0 or finished > order["deadlineMs"] else min(cost, order["maxAmount"])
    tail = abi_encode(["uint64", "uint64", "uint64", "uint8"], [units_in, units_out, finished, status])
    return "0x" + (encoded(Offer, offer) + encoded(Order, order) + tail).hex(), "0x" + due.to_bytes(
        32, "big"
    ).hex()


def write(name: str, data: dict[str, Any]) -> None:
    (HERE / name).write_text(json.dumps(data, indent=0) + "\n")


if __name__ == "__main__":
    main()

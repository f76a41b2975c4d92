"""The balance checker itself: silent on true books, loud at one atom anywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from eth_abi import encode as abi_encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils import keccak

from tests.e2e import checker
from tests.e2e.checker import Event, Evidence, SignedReceipt, check

ESCROW, TOKEN = "0x5FbDB2315678afecb367f032d93F642f64180aa3", "0xe7f1725E7734CE288F8367e1Bb143E90bb3F0512"
BUYER, OWNER = Account.from_key(b"\x01" * 32).address, Account.from_key(b"\x02" * 32).address
NODE = Account.from_key(b"\x03" * 32)
ZERO = "0x" + "00" * 20
SESSION, GONE, HELD = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32
DOMAIN = {"name": "Wattline", "version": "1", "chainId": 31337, "verifyingContract": ESCROW}


def typed(name: str, layout: str, values: dict[str, Any]) -> tuple[bytes, Any]:
    kinds = [dict(zip(("name", "type"), p.split(":"), strict=True)) for p in layout.split()]
    encoded = abi_encode([k["type"] for k in kinds], [values[k["name"]] for k in kinds])
    return encoded, encode_typed_data(DOMAIN, {name: kinds}, values)


def receipt(seq: int, units_out: int, job: str, session: bytes = SESSION) -> SignedReceipt:
    offer = {
        "nodeId": 1, "modelId": bytes(32), "pricePerJob": 10, "priceInPerMillion": 0,
        "priceOutPerMillion": 1_000_000, "maxLatencyMs": 0, "lateDiscountBps": 0,
        "maxMillijoulesPerMillionOut": 0, "validUntil": 9_999, "salt": bytes(32),
    }  # fmt: skip
    offer_bytes, _ = typed("Offer", checker.OFFER_TYPE, offer)
    order = {
        "sessionId": session, "seq": seq, "offerHash": bytes(32), "requestHash": bytes([seq]) * 32,
        "maxAmount": 1_000, "issuedAtMs": 5, "deadlineMs": 50, "replyKey": bytes(32),
    }  # fmt: skip
    order_bytes, signable = typed("Order", checker.ORDER_TYPE, order)
    body = {
        "orderHash": keccak(b"\x19" + signable.version + signable.header + signable.body),
        "responseHash": bytes(32), "execHash": bytes(32), "unitsIn": 3, "unitsOut": units_out,
        "amount": 10 + units_out, "startedAtMs": 6, "finishedAtMs": 9, "energyMillijoules": 1, "status": 1,
    }  # fmt: skip
    data, signable = typed("Receipt", checker.RECEIPT_TYPE, body)
    signature = NODE.sign_message(signable).signature
    return SignedReceipt(offer_bytes, order_bytes, data, bytes(signature), NODE.address, job)


def books() -> Evidence:
    """One buyer, one node, a settled and topped-up session, a closed one, a collection with a fee."""
    rows: list[tuple[str, list[Any], str]] = [
        ("Transfer", [BUYER, ESCROW, 1_000], TOKEN),
        ("Deposited", [BUYER, 1_000], ESCROW),
        ("SessionOpened", [SESSION, BUYER, 1, BUYER, 200, 99, 1], ESCROW),
        ("SessionOpened", [GONE, BUYER, 1, BUYER, 50, 99, 1], ESCROW),
        ("SessionToppedUp", [SESSION, 100, 300], ESCROW),
        ("VoucherSettled", [SESSION, 2, 60, bytes(32)], ESCROW),
        ("SessionClosed", [GONE, 0, 50], ESCROW),
        ("Transfer", [ESCROW, OWNER, 38], TOKEN),
        ("Collected", [1, OWNER, 38, 2], ESCROW),
        ("VoucherSettled", [SESSION, 3, 75, bytes(32)], ESCROW),
        ("Claimed", [SESSION, 5, 30, 9, []], ESCROW),
        ("ClaimReplaced", [SESSION[:24] + bytes(8), 30], ESCROW),
        ("BatchSettled", [BUYER, bytes(32), SESSION[:24] + bytes([0, 0, 0, 4]) + bytes(7) + b"\x5c"], ESCROW),
        ("SessionOpened", [HELD, BUYER, 1, BUYER, 40, 99, 1], ESCROW),
        ("Claimed", [HELD, 2, 35, 9, [bytes(32)]], ESCROW),
        ("SessionClosed", [HELD, 0, 5], ESCROW),
        ("ClaimFinalised", [HELD, 2, 20, 20], ESCROW),
        ("ClaimResolved", [HELD, 10, True], ESCROW),
        ("ClaimResolved", [HELD, 5, False], ESCROW),
        ("Transfer", [ESCROW, BUYER, 100], TOKEN),
        ("Withdrawn", [BUYER, BUYER, 100], ESCROW),
        ("Transfer", [ZERO, BUYER, 5], TOKEN),
    ]
    events = [Event(n, a, c, block=i, index=0, tx=f"0x{i}") for i, (n, a, c) in enumerate(rows)]
    return Evidence(
        chain_id=31337, escrow=ESCROW, token=TOKEN, events=events,
        token_balance=1_000 - 38 - 100, fees=2,
        accounts={BUYER: 1_000 - 200 - 50 - 100 + 50 - 100 - 40 + 5 + 5},
        sessions={
            "0x" + SESSION.hex(): (300, 92, 4, False), "0x" + GONE.hex(): (50, 0, 0, True),
            "0x" + HELD.hex(): (40, 30, 2, True),
        },
        claimed={"0x" + session.hex(): 0 for session in (SESSION, GONE, HELD)},
        earnings={1: 92 - 40 + 30},
        receipts=[receipt(1, 20, "a"), receipt(2, 20, "b"), receipt(3, 5, "c"), receipt(4, 7, "d")],
    )  # fmt: skip


def bump_event(name: str, position: int, by: int) -> Callable[[Evidence], None]:
    def plant(evidence: Evidence) -> None:
        event = next(e for e in evidence.events if e.name == name)
        event.args[position] += by

    return plant


def bump_session(part: int, by: int) -> Callable[[Evidence], None]:
    def plant(evidence: Evidence) -> None:
        values: list[Any] = list(evidence.sessions["0x" + SESSION.hex()])
        values[part] += by
        evidence.sessions["0x" + SESSION.hex()] = tuple(values)  # type: ignore[assignment]

    return plant


def bump_receipt(position: int, by: int) -> Callable[[Evidence], None]:
    """Changes one word of a receipt: its signature no longer fits either."""

    def plant(evidence: Evidence) -> None:
        item = evidence.receipts[0]
        word = int.from_bytes(item.receipt[32 * position : 32 * position + 32], "big") + by
        item.receipt = (
            item.receipt[: 32 * position] + word.to_bytes(32, "big") + item.receipt[32 * position + 32 :]
        )

    return plant


def edit(action: Callable[[Evidence], Any]) -> Callable[[Evidence], None]:
    def plant(evidence: Evidence) -> None:
        action(evidence)

    return plant


PLANTED = {
    **{
        f"{name}[{position}]{by:+d}": bump_event(name, position, by)
        for name, position in (
            ("Deposited", 1), ("Withdrawn", 2), ("SessionOpened", 4), ("SessionToppedUp", 1),
            ("SessionToppedUp", 2), ("VoucherSettled", 2), ("SessionClosed", 1), ("SessionClosed", 2),
            ("Collected", 2), ("Collected", 3), ("Transfer", 2), ("Claimed", 2), ("ClaimReplaced", 1),
            ("ClaimFinalised", 2), ("ClaimFinalised", 3), ("ClaimResolved", 1),
        )
        for by in (1, -1)
    },
    "token balance": edit(lambda e: setattr(e, "token_balance", e.token_balance + 1)),
    "fees": edit(lambda e: setattr(e, "fees", e.fees - 1)),
    "account": edit(lambda e: e.accounts.update({BUYER: e.accounts[BUYER] + 1})),
    "earnings": edit(lambda e: e.earnings.update({1: e.earnings[1] - 1})),
    "session deposited": bump_session(0, 1),
    "session paid": bump_session(1, -1),
    "session through": bump_session(2, 1),
    "receipt amount +1": bump_receipt(5, 1),
    "receipt amount -1": bump_receipt(5, -1),
    "receipt units": bump_receipt(4, 1),
    "lost event": edit(lambda e: e.events.pop(5)),
    "doubled event": edit(lambda e: e.events.append(copy.deepcopy(e.events[1]))),
    "lost receipt": edit(lambda e: e.receipts.pop(1)),
    "receipt twice": edit(lambda e: e.receipts.append(copy.deepcopy(e.receipts[0]))),
    "job charged twice": edit(lambda e: setattr(e.receipts[1], "job_id", "a")),
    "foreign signer": edit(lambda e: setattr(e.receipts[0], "node_signer", OWNER)),
    "unsettled receipt claimed settled": edit(lambda e: e.receipts.append(receipt(2, 1, "e"))),
}  # fmt: skip


def test_true_books_balance() -> None:
    assert check(books()) == []


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED.keys())
def test_every_planted_error_is_flagged(plant: Callable[[Evidence], None]) -> None:
    evidence = books()
    plant(evidence)
    assert check(evidence) != []

from __future__ import annotations

import base64
import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from marketplace.client.anchors import check_on_chain
from marketplace.client.bundle import Bundle
from marketplace.client.verify import CHAIN_CHECKS, failures, passed, verify_receipt
from marketplace.protocol.eip712 import WORD, Domain, fields_of
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Offer, Order, Receipt
from tests.client.fake_market import FakeMarket
from tests.client.fakes import DOMAIN

# The gateway's own name for the job: nobody signs it, so nothing can tell a wrong one.
LABELS = {("job_id",)}
NEEDS_CHAIN = {("node", "epoch"), ("settlement", "tx_hash"), ("settlement", "block")}


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else None
    if items is None:
        yield path
        return
    for key, value in items:
        yield from leaves(value, (*path, key))


def changed(value: Any) -> Any:
    if isinstance(value, int):
        return value + 1
    if value.isdigit():
        return str(int(value) + 1)
    if value.startswith("0x"):
        raw = bytes.fromhex(value[2:])
        return to_hex(raw[:-1] + bytes([raw[-1] ^ 1]))
    try:
        raw = base64.b64decode(value, validate=True)
        return base64.b64encode(raw[:-1] + bytes([raw[-1] ^ 1])).decode() if raw else "AA=="
    except ValueError:
        return value[:-1] + ("0" if value[-1] != "0" else "1")


def put(data: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(data)
    at: Any = made
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return made


def to_alias(session_id: bytes) -> bytes:
    """Another id that the escrow takes for the same."""
    return session_id[:24] + bytes(8)


def get(data: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        data = data[step]
    return data


@pytest.fixture
def settled(market: FakeMarket, bundle: Bundle) -> dict[str, Any]:
    return market.chain.settle(bundle).to_json()


def test_honest_bundle_passes_and_names_what_needs_the_chain(settled: dict[str, Any]) -> None:
    checks = verify_receipt(settled)
    assert passed(checks), failures(checks)
    assert {c.name for c in checks if c.ok is None} == set(CHAIN_CHECKS)


def test_honest_bundle_passes_on_chain(settled: dict[str, Any], market: FakeMarket) -> None:
    checks = check_on_chain(Bundle.from_json(settled), market.chain, DOMAIN)
    assert [c.name for c in checks] == list(CHAIN_CHECKS)
    assert all(c.ok for c in checks)


def test_json_of_a_bundle_reads_back_as_itself(settled: dict[str, Any]) -> None:
    assert Bundle.from_json(settled).to_json() == settled


def test_every_single_field_change_fails_a_check(settled: dict[str, Any], market: FakeMarket) -> None:
    for path in leaves(settled):
        mutated = put(settled, path, changed(get(settled, path)))
        checks = verify_receipt(mutated)
        if path in NEEDS_CHAIN:
            checks = check_on_chain(Bundle.from_json(mutated), market.chain, DOMAIN)
        assert passed(checks) == (path in LABELS), (path, failures(checks))


@pytest.mark.parametrize(("name", "message"), [("offer", Offer), ("order", Order), ("receipt", Receipt)])
def test_every_word_of_every_message_is_covered(settled: dict[str, Any], name: str, message: Any) -> None:
    raw = bytes.fromhex(settled[name]["message"][2:])
    for position, field in enumerate(fields_of(message)):
        end = (position + 1) * WORD
        mutated = raw[: end - 1] + bytes([raw[end - 1] ^ 1]) + raw[end:]
        checks = verify_receipt(put(settled, (name, "message"), to_hex(mutated)))
        assert not passed(checks), field


def test_every_missing_field_fails_a_check(settled: dict[str, Any]) -> None:
    optional = {"settlement", "key", "id", "job_id", "fields"}
    for field in set(settled) - optional:
        assert not passed(verify_receipt({k: v for k, v in settled.items() if k != field})), field


@pytest.mark.parametrize("junk", [None, [], "x", 7, {"version": 1}, {"version": 2}])
def test_junk_is_one_failed_check(junk: Any) -> None:
    checks = verify_receipt(junk)
    assert [c.name for c in failures(checks)] == ["format"]


def test_chunks_cannot_be_reordered_dropped_or_joined(settled: dict[str, Any]) -> None:
    first, second, *rest = settled["chunks"]
    joined = base64.b64encode(base64.b64decode(first) + base64.b64decode(second)).decode()
    for chunks in ([second, first, *rest], [first, *rest], [joined, *rest], []):
        assert "response hash" in {c.name for c in failures(verify_receipt({**settled, "chunks": chunks}))}


def test_unnamed_key_is_left_to_the_chain(settled: dict[str, Any]) -> None:
    (check,) = [c for c in verify_receipt({**settled, "key": ""}) if c.name == "order signature"]
    assert check.ok is None
    assert settled["key"] in check.detail


def test_key_that_is_not_the_sessions_fails_on_chain(bundle: Bundle, market: FakeMarket) -> None:
    market.chain.held.clear()
    names = {c.name for c in failures(check_on_chain(bundle, market.chain, DOMAIN))}
    assert "session" in names


def test_bundle_of_other_contracts_proves_nothing(bundle: Bundle, market: FakeMarket) -> None:
    (check,) = check_on_chain(bundle, market.chain, Domain(1, DOMAIN.escrow))
    assert check.ok is False


def test_settlement_of_another_session_is_no_payment(bundle: Bundle, market: FakeMarket) -> None:
    paid = market.chain.settle(bundle)
    market.chain.logs[0].args["sessionId"] = "0x" + "00" * 32
    names = {c.name for c in failures(check_on_chain(paid, market.chain, DOMAIN))}
    assert names == {"settlement"}


def test_settlement_in_a_batch_is_a_payment(bundle: Bundle, market: FakeMarket) -> None:
    paid = market.chain.settle(bundle)
    market.chain.logs[0].args["sessionId"] = to_hex(bundle.order.session_id[:24].ljust(32, b"\0"))
    assert failures(check_on_chain(paid, market.chain, DOMAIN)) == []


@pytest.mark.parametrize(
    ("name", "more"),
    [("ClaimFinalised", {}), ("ClaimResolved", {"isPaid": True}), ("ClaimResolved", {"isPaid": False})],
)
def test_claim_pays_what_it_lists(
    bundle: Bundle, market: FakeMarket, name: str, more: dict[str, Any]
) -> None:
    paid = market.chain.settle(bundle)
    event = market.chain.logs[0]
    args = {**event.args, "amount": bundle.receipt.amount_atoms, **more}
    market.chain.logs[0] = dataclasses.replace(event, name=name, args=args)
    (check,) = failures(check_on_chain(paid, market.chain, DOMAIN))
    assert check.name == "settlement"
    listed = {"sessionId": args["sessionId"], "receiptHashes": [to_hex(bundle.receipt.digest(DOMAIN))]}
    market.chain.logs.append(dataclasses.replace(event, name="Claimed", block_number=40, args=listed))
    assert (failures(check_on_chain(paid, market.chain, DOMAIN)) == []) is more.get("isPaid", True)


def test_session_whose_id_only_begins_alike_fails_on_chain(bundle: Bundle, market: FakeMarket) -> None:
    market.chain.held = {(to_alias(known), by): held for (known, by), held in market.chain.held.items()}
    assert [c.name for c in failures(check_on_chain(bundle, market.chain, DOMAIN))] == ["session"]


def test_settlement_before_the_job_is_no_payment(bundle: Bundle, market: FakeMarket) -> None:
    paid = market.chain.settle(bundle)
    market.chain.logs[0].args["throughSeq"] = 0
    assert [c.detail for c in failures(check_on_chain(paid, market.chain, DOMAIN))] == [
        "it pays only earlier jobs"
    ]


def test_unreadable_bundle_is_the_readers_error() -> None:
    with pytest.raises(BadRequest, match="not a receipt bundle"):
        Bundle.from_json({"version": 1})

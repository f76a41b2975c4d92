"""A session's terms, read off the chain by whoever needs them later."""

from __future__ import annotations

from typing import Any

import pytest
from eth_abi.abi import encode

from marketplace.chain import calls
from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.codec import ChainEvent
from marketplace.chain.terms import terms_in
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open
from tests.chain.test_codec import HERE, raw_log
from tests.chain.test_rpc import Answer, FakeEndpoint, endpoint, error, result  # noqa: F401 - fixture
from tests.hardhat import Chain, key

BUYER, OWNER, NODE, SETTLER, AGENT, OTHER = (key(n) for n in range(1, 7))
DOMAIN = Domain(31_337, "0x5FbDB2315678afecb367f032d93F642f64180aa3")


def terms(**changes: Any) -> Open:
    values: dict[str, Any] = {
        "buyer": BUYER.address,
        "key": AGENT.address,
        "node_id": 3,
        "amount_atoms": 77,
        "open_before": 5,
        "expires_at": 9,
        "salt": b"\x07" * 32,
    }
    return Open(**values | changes)


def word(kind: str, value: Any) -> bytes:
    return bytes(encode([kind], [value]))


def opened(of: Open) -> ChainEvent:
    args = {
        "sessionId": to_hex(of.digest(DOMAIN)),
        "buyer": of.buyer,
        "nodeId": of.node_id,
        "key": of.key,
        "amount": of.amount_atoms,
        "expiresAt": of.expires_at,
        "keyEpoch": 1,
    }
    return ChainEvent(
        name="SessionOpened",
        args=args,
        contract="Escrow",
        block_number=1,
        block_hash=bytes(32),
        tx_hash=bytes(32),
        log_index=0,
    )


def test_terms_are_found_wherever_calldata_carries_them() -> None:
    wanted = terms()
    data = b"\x01\x02\x03\x04" + b"\x05" * 13 + wanted.encode() + b"\x06" * 5
    assert terms_in(data, opened(wanted), DOMAIN) == wanted


def test_others_that_look_alike_are_passed_over() -> None:
    wanted = terms()
    bait = terms(salt=b"\x08" * 32).encode()
    broken = wanted.encode()[:128] + b"\xff" * 96
    assert terms_in(bait + broken + wanted.encode(), opened(wanted), DOMAIN) == wanted


@pytest.mark.parametrize("data", [b"", terms().encode()[:-1], terms(salt=b"\x08" * 32).encode()])
def test_terms_that_are_not_there_are_none(data: bytes) -> None:
    assert terms_in(data, opened(terms()), DOMAIN) is None


def test_terms_are_found_where_the_node_answers_for_few_blocks_only(
    endpoint: FakeEndpoint,  # noqa: F811 - the fixture above
) -> None:
    wanted = terms()
    topics = [wanted.digest(HERE.domain), word("address", wanted.buyer), word("uint32", wanted.node_id)]
    data = encode(["address", "uint128", "uint48", "uint16"], [wanted.key, wanted.amount_atoms, 9, 1])
    head = {"number": "0x14", "hash": to_hex(bytes(32)), "parentHash": to_hex(bytes(32)), "timestamp": "0x1"}

    def answer(method: str, params: list[Any]) -> Answer:
        if method == "eth_getBlockByNumber":
            return result(head)
        if method == "eth_getTransactionByHash":
            return result({"input": to_hex(wanted.encode())})
        first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
        if last - first >= 10:
            return error(-32005, "query exceeds the largest range")
        return result([raw_log("Escrow", "SessionOpened", topics, data)] if first <= 16 <= last else [])

    endpoint.answer = answer
    assert ChainClient(endpoint.url, HERE).terms_of(wanted.digest(HERE.domain)) == wanted


@pytest.mark.chain
def test_terms_of_one_and_of_many_sessions_are_read_off_the_chain(chain: Chain) -> None:
    chain.fund(BUYER, 1_000)
    node_id = chain.add_node(OWNER, NODE, SETTLER)
    alone = chain.open_session(BUYER, AGENT, node_id, 10)
    together = [chain.terms(BUYER, agent, node_id, 20) for agent in (AGENT, AGENT, OTHER)]
    domain = chain.deployment.domain
    signed = [(each, BUYER.sign(each, domain)) for each in together]
    chain.send(OTHER, calls.open_sessions(chain.deployment, signed))
    for each in (alone, *together):
        assert chain.client.terms_of(each.digest(domain)) == each
    unknown = chain.terms(BUYER, AGENT, node_id, 10)
    assert chain.client.terms_of(unknown.digest(domain)) is None


@pytest.mark.chain
def test_buyer_cannot_hide_terms_in_calldata_that_only_the_escrow_takes(chain: Chain) -> None:
    chain.fund(BUYER, 1_000)
    hidden = chain.terms(BUYER, AGENT, chain.add_node(OWNER, NODE, SETTLER), 10)
    plain = calls.open_sessions(chain.deployment, [(hidden, BUYER.sign(hidden, chain.deployment.domain))])
    # Padding behind the signature that is not zero: a strict decoder refuses it.
    chain.send(OTHER, Call(to=plain.to, data=plain.data[:-1] + b"\x01", what="open with dirty padding"))
    assert chain.client.terms_of(hidden.digest(chain.deployment.domain)) == hidden

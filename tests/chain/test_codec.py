"""Calldata, logs and reverts agree with a general ABI library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st
from web3 import Web3

from marketplace.chain import calls
from marketplace.chain.artifacts import NAMES, compact_artifact, contract
from marketplace.chain.calls import Call
from marketplace.chain.codec import decode_log, decode_result, decode_revert, event_topic
from marketplace.chain.deployment import Deployment
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.messages import Open, Voucher
from marketplace.protocol.signing import Signer, compact

ROOT = Path(__file__).resolve().parents[2]
ALICE, BOB = Signer(b"\x01" * 32), Signer(b"\x02" * 32)
HERE = Deployment(
    chain_id=31337,
    genesis_hash=b"\x07" * 32,
    deployed_block=1,
    token=Signer(b"\x11" * 32).address,
    registry=Signer(b"\x12" * 32).address,
    escrow=Signer(b"\x13" * 32).address,
    court="0x" + "44" * 20,
    treasury=Signer(b"\x14" * 32).address,
    token_symbol="TUSD",
    token_decimals=6,
    min_stake_atoms=1,
    max_session_seconds=100,
    grace_seconds=10,
    challenge_seconds=21_600,
)
TERMS = Open(
    buyer=ALICE.address,
    key=BOB.address,
    node_id=3,
    amount_atoms=9,
    open_before=10,
    expires_at=20,
    salt=b"\x05" * 32,
)
WORDS = st.binary(min_size=32, max_size=32)


def reference(name: str, function: str, *values: object) -> str:
    path = ROOT / "marketplace" / "chain" / "abi" / f"{name}.json"
    found = Web3().eth.contract(abi=json.loads(path.read_text())["abi"])
    return str(found.encode_abi(function, args=list(values)))


def terms_tuple(terms: Open) -> tuple[object, ...]:
    return (
        terms.buyer,
        terms.key,
        terms.node_id,
        terms.amount_atoms,
        terms.open_before,
        terms.expires_at,
        terms.salt,
    )


@pytest.mark.parametrize("name", NAMES)
def test_packaged_interface_is_that_of_the_last_build(name: str) -> None:
    built = ROOT / "artifacts" / "contracts" / f"{name}.sol" / f"{name}.json"
    if not built.exists():
        pytest.skip("contracts are not built here")
    packaged = ROOT / "marketplace" / "chain" / "abi" / f"{name}.json"
    assert code_and_interface(packaged.read_text()) == code_and_interface(compact_artifact(built)), (
        "run python -m marketplace.chain.abi"
    )


def code_and_interface(text: str) -> tuple[object, str]:
    """Without the last 53 bytes: a hash of the sources, comments included."""
    data = json.loads(text)
    return data["abi"], data["bytecode"][: -53 * 2]


def test_settle_hands_in_compact_signatures() -> None:
    voucher = Voucher(session_id=b"\x09" * 32, through_seq=4, amount_atoms=5, receipts_root=b"\x08" * 32)
    signature = BOB.sign(voucher, HERE.domain)
    expected = reference("Escrow", "settle", [(b"\x09" * 32, 4, 5, b"\x08" * 32, *compact(signature))])
    call = calls.settle(HERE, [(voucher, signature)])
    assert to_hex(call.data) == expected
    assert call.to == HERE.escrow


def test_calls_encode_as_the_reference_does() -> None:
    signature, key = b"\x01" * 65, b"\x02" * 32
    terms = terms_tuple(TERMS)
    address = ALICE.address
    pairs: list[tuple[Call, tuple[Any, ...]]] = [
        (calls.faucet(HERE, address, 7), ("TestDollar", "faucet", address, 7)),
        (calls.approve(HERE, HERE.escrow, 7), ("TestDollar", "approve", HERE.escrow, 7)),
        (calls.deposit(HERE, 7), ("Escrow", "deposit", 7)),
        (calls.withdraw(HERE, 7, address), ("Escrow", "withdraw", 7, address)),
        (
            calls.open_sessions(HERE, [(TERMS, signature), (TERMS, b"")]),
            ("Escrow", "open", [terms, terms], [signature, b""]),
        ),
        (calls.top_up(HERE, TERMS, 8, signature), ("Escrow", "topUp", terms, 8, signature)),
        (calls.close(HERE, TERMS, 8, signature), ("Escrow", "close", terms, 8, signature)),
        (calls.expire(HERE, [TERMS]), ("Escrow", "expire", [terms])),
        (calls.collect(HERE, [1, 2]), ("Escrow", "collect", [1, 2])),
        (calls.register(HERE, "hé"), ("NodeRegistry", "register", "hé")),
        (calls.stake(HERE, 7), ("NodeRegistry", "stake", 7)),
        (
            calls.add_node(HERE, address, key, BOB.address, "u"),
            ("NodeRegistry", "addNode", address, key, BOB.address, "u"),
        ),
        (
            calls.rotate_node_key(HERE, 1, address, key),
            ("NodeRegistry", "rotateNodeKey", 1, address, key),
        ),
        (calls.set_settler(HERE, 1, address), ("NodeRegistry", "setSettler", 1, address)),
        (calls.request_unstake(HERE, 7), ("NodeRegistry", "requestUnstake", 7)),
        (calls.withdraw_stake(HERE), ("NodeRegistry", "withdrawStake")),
    ]
    for call, (name, function, *values) in pairs:
        assert to_hex(call.data) == reference(name, function, *values), call.what


def raw_log(contract_name: str, event: str, topics: list[bytes], data: bytes) -> dict[str, object]:
    address = HERE.escrow if contract_name == "Escrow" else HERE.registry
    return {
        "address": address.lower(),
        "topics": [event_topic(contract_name, event), *(to_hex(t) for t in topics)],
        "data": to_hex(data),
        "blockNumber": "0x10",
        "blockHash": "0x" + "aa" * 32,
        "transactionHash": "0x" + "bb" * 32,
        "logIndex": "0x3",
    }


CONTRACTS = {HERE.escrow.lower(): "Escrow", HERE.registry.lower(): "NodeRegistry"}


@given(WORDS, st.integers(0, 2**32 - 1), st.integers(0, 2**128 - 1), WORDS)
def test_decode_log_reads_what_was_emitted(session_id: bytes, seq: int, paid: int, root: bytes) -> None:
    topics = [session_id]
    data = encode(["uint32", "uint128", "bytes32"], [seq, paid, root])
    event = decode_log(raw_log("Escrow", "VoucherSettled", topics, data), CONTRACTS)
    assert event is not None
    assert (event.name, event.contract, event.block_number, event.log_index) == (
        "VoucherSettled",
        "Escrow",
        16,
        3,
    )
    assert event.args == {
        "sessionId": to_hex(session_id),
        "throughSeq": seq,
        "paid": paid,
        "receiptsRoot": to_hex(root),
    }


@given(WORDS, WORDS, st.lists(WORDS, max_size=5))
def test_decode_log_reads_lists_and_bytes(session_id: bytes, root: bytes, hashes: list[bytes]) -> None:
    data = encode(["uint32", "uint128", "uint48", "bytes32[]"], [7, 8, 9, hashes])
    claimed = decode_log(raw_log("Escrow", "Claimed", [session_id], data), CONTRACTS)
    assert claimed is not None
    assert claimed.args["receiptHashes"] == [to_hex(each) for each in hashes]
    batch = encode(["bytes32", "bytes"], [root, b"".join(hashes)])
    settled = decode_log(raw_log("Escrow", "BatchSettled", [bytes(12) + b"\x01" * 20], batch), CONTRACTS)
    assert settled is not None
    assert settled.args["vouchers"] == to_hex(b"".join(hashes))


@given(st.text(max_size=200))
def test_decode_log_reads_text_after_words(uri: str) -> None:
    topics = [b"\x01".rjust(32, b"\0"), bytes.fromhex(ALICE.address[2:]).rjust(32, b"\0")]
    data = encode(["address", "bytes32", "string"], [BOB.address, b"\x02" * 32, uri])
    event = decode_log(raw_log("NodeRegistry", "NodeAdded", topics, data), CONTRACTS)
    assert event is not None
    assert event.args["uri"] == uri
    assert event.args["owner"] == ALICE.address
    assert event.args["signer"] == BOB.address


@given(st.binary(max_size=96))
def test_decode_log_survives_text_of_any_bytes(body: bytes) -> None:
    topics = [bytes.fromhex(ALICE.address[2:]).rjust(32, b"\0")]
    padded = body.ljust(-len(body) % 32 + len(body), b"\0")
    data = (32).to_bytes(32, "big") + len(body).to_bytes(32, "big") + padded
    event = decode_log(raw_log("NodeRegistry", "ProviderRegistered", topics, data), CONTRACTS)
    assert event is not None
    assert isinstance(event.args["uri"], str)
    json.dumps(event.args)


def test_decode_log_passes_over_foreign_and_removed_logs() -> None:
    log = raw_log("Escrow", "Deposited", [b"\0" * 32], bytes(32))
    assert decode_log(log | {"removed": True}, CONTRACTS) is None
    assert decode_log(log | {"address": ALICE.address}, CONTRACTS) is None
    assert decode_log(log | {"topics": [to_hex(keccak(b"Other()"))]}, CONTRACTS) is None
    assert decode_log(log | {"topics": []}, CONTRACTS) is None


def test_decode_revert_names_error_and_arguments() -> None:
    selector = next(s for s, e in contract("Escrow").errors.items() if e.name == "Escrow_AboveAccount")
    revert = decode_revert(selector + encode(["uint128", "uint128"], [7, 3]))
    assert str(revert) == "Escrow_AboveAccount(got=7, limit=3)"


def test_decode_revert_reads_plain_reasons_and_panics() -> None:
    reason = keccak(b"Error(string)")[:4] + encode(["string"], ["no"])
    panic = keccak(b"Panic(uint256)")[:4] + encode(["uint256"], [17])
    assert str(decode_revert(reason)) == "Error(reason=no)"
    assert str(decode_revert(panic)) == "Panic(code=17)"


@given(st.binary(max_size=80))
def test_decode_revert_never_raises(data: bytes) -> None:
    decode_revert(data)


def test_decode_result_refuses_bytes_of_another_contract() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        decode_result("Escrow", "session", b"")

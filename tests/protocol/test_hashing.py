"""Merkle trees, request and response hashes, sealing, ids."""

from __future__ import annotations

import pytest
from eth_utils import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from marketplace.protocol import ids, merkle, sealing
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import ZERO32, checksum, from_hex, keccak, typed_address

LEAVES = st.lists(st.binary(min_size=32, max_size=32), max_size=70)


def rfc6962(leaves: list[bytes]) -> bytes:
    """The recursive definition: split at the largest power of two below the size."""
    if not leaves:
        return ZERO32
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return keccak(b"\x02" + rfc6962(leaves[:split]) + rfc6962(leaves[split:]))


@given(LEAVES)
def test_root_and_frontier_follow_rfc_6962(leaves: list[bytes]) -> None:
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier = frontier.append(leaf)
    assert merkle.root(leaves) == frontier.root() == rfc6962(leaves)


def test_response_hash_binds_order_content_salt_and_number() -> None:
    salt, other = bytes(32), b"\1" * 32
    base = merkle.response_hash(salt, [b"a", b"b"])
    changed = ([b"b", b"a"], [b"a"], [b"a", b"b", b""], [b"ab"])
    assert len({base, merkle.response_hash(other, [b"a", b"b"])}) == 2
    assert all(merkle.response_hash(salt, c) != base for c in changed)


def test_request_and_leaf_prefixes_differ() -> None:
    assert merkle.request_hash(bytes(32), bytes(4) + b"x") != merkle.response_leaf(bytes(32), 0, b"x")


def test_sealed_bytes_open_only_with_key_info_and_integrity() -> None:
    secret, other = b"\x05" * 32, b"\x06" * 32
    sealed = sealing.seal(sealing.public_key(secret), b"job", b"a prompt")
    assert b"a prompt" not in sealed
    assert sealing.unseal(secret, b"job", sealed) == b"a prompt"
    for key, info, data in (
        (other, b"job", sealed),
        (secret, b"bob", sealed),
        (secret, b"job", sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (secret, b"job", b""),
    ):
        with pytest.raises(BadRequest):
            sealing.unseal(key, info, data)


def test_ids_have_one_form() -> None:
    assert ids.job_id(bytes(15)) == "job_" + "a" * 24
    assert ids.api_key(bytes(24)).startswith("sk-watt-")
    assert ids.api_key_hash("sk-watt-a") != ids.api_key_hash("sk-watt-b")
    assert len(ids.trace_id(b"\xff" * 16)) == 32
    assert ids.receipt_id(b"\xab" * 32) == "rcpt_" + "ab" * 16


@pytest.mark.parametrize("text", ["00", "0x0", "0xzz", "0x00"])
def test_hex_is_strict(text: str) -> None:
    with pytest.raises(ValueError, match=r"hex|0x|non-hexadecimal"):
        from_hex(text, 32)


def test_address_with_a_mistyped_digit_is_refused() -> None:
    right = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    for text in (right, right.lower(), "0x" + right[2:].upper()):
        assert typed_address(text) == right
    for digit in ("c", "D"):
        with pytest.raises(ValueError, match="mistyped"):
            typed_address(right[:-1] + digit)
    for text in ("0x12", right[2:], right + "00", ""):
        with pytest.raises(ValueError, match="hex"):
            typed_address(text)


@given(raw=st.binary(min_size=20, max_size=20))
def test_checksum_is_the_one_everybody_computes(raw: bytes) -> None:
    theirs = to_checksum_address(raw)
    forms = (raw, theirs, raw.hex(), "0x" + raw.hex().upper(), "0X" + raw.hex())
    assert {checksum(form) for form in forms} == {theirs}


@pytest.mark.parametrize(
    "address", ["", "0x", "0x12", "11" * 21, b"\x01" * 19, b"\x01" * 32, "0x" + "g0" * 20, "0x" + "1 " * 20]
)
def test_checksum_of_no_address_is_a_value_error(address: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"address|hex"):
        checksum(address)


@pytest.mark.parametrize("value", [None, 5, b"\x01", ["0x01"], {}])
def test_hex_that_is_no_text_is_a_value_error(value: object) -> None:
    with pytest.raises(ValueError, match="must be text"):
        from_hex(value)  # type: ignore[arg-type]

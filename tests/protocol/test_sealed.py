"""Sealed jobs: who opens what, and that nothing opens anywhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from marketplace.protocol import sealed, sealing
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.messages import Order
from marketplace.protocol.sealed import BLOCK_BYTES, MAGIC, BuyerSeal, Responses

NODE, OTHER_NODE, KEY = b"\x05" * 32, b"\x06" * 32, b"\x07" * 32
SALT, PAYLOAD, ORDER_HASH = b"\x0a" * 32, b'{"task":"chat","text":"a prompt"}', b"\x0b" * 32
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def order(seq: int = 1) -> Order:
    reply = sealed.reply_secret(KEY, bytes(32), seq, b"\x01" * 32)
    return Order(
        session_id=bytes(32),
        seq=seq,
        offer_hash=bytes(32),
        request_hash=b"\x01" * 32,
        max_amount_atoms=1,
        issued_at_ms=1,
        deadline_ms=2,
        reply_key=sealing.public_key(reply),
    )


def buyer(seq: int = 1, node: bytes = NODE, order_hash: bytes = ORDER_HASH) -> BuyerSeal:
    reply = sealed.reply_secret(KEY, bytes(32), seq, b"\x01" * 32)
    return BuyerSeal.of(reply, sealing.public_key(node), order_hash)


def refused(open_it: Callable[[], object]) -> None:
    with pytest.raises(BadRequest) as caught:
        open_it()
    assert caught.value.code is ErrorCode.SEAL_UNUSABLE


def test_contexts_are_those_of_rfc_9180() -> None:
    secret, info = b"\x21" * 32, b"about this"
    ours = sealing.sending(secret, sealing.public_key(NODE), info).seal(b"hello")
    theirs = SUITE.decrypt(sealing.public_key(secret) + ours, X25519PrivateKey.from_private_bytes(NODE), info)
    assert bytes(theirs) == b"hello"
    public = X25519PublicKey.from_public_bytes(sealing.public_key(NODE))
    message = bytes(SUITE.encrypt(b"hello", public, info))
    assert sealing.receiving(NODE, message[:32], info).open(message[32:]) == b"hello"


def test_both_ends_read_what_the_other_sealed() -> None:
    mine = buyer()
    request = mine.seal(SALT, PAYLOAD)
    opened = sealed.open_request(NODE, order(), ORDER_HASH, request)
    assert (opened.salt, opened.payload) == (SALT, PAYLOAD)
    assert mine.open(request) == (SALT, PAYLOAD)
    for index, body in enumerate((b"{}", b"x" * 300)):
        assert mine.responses.open_chunk(index, opened.responses.seal_chunk(index, body)) == body
    assert mine.responses.open_annex(opened.responses.seal_annex(b"an annex")) == b"an annex"
    assert Responses(opened.responses.secret) == mine.responses


def test_same_order_seals_to_the_same_bytes() -> None:
    assert buyer().seal(SALT, PAYLOAD) == buyer().seal(SALT, PAYLOAD)
    node = sealed.open_request(NODE, order(), ORDER_HASH, buyer().seal(SALT, PAYLOAD)).responses
    assert node.seal_chunk(3, b"again") == node.seal_chunk(3, b"again")


@pytest.mark.parametrize(
    ("secret", "seq", "order_hash"),
    [(OTHER_NODE, 1, ORDER_HASH), (NODE, 2, ORDER_HASH), (NODE, 1, b"\x0c" * 32)],
    ids=["another node", "reply key of another order", "another order"],
)
def test_request_opens_for_its_node_and_order_only(secret: bytes, seq: int, order_hash: bytes) -> None:
    request = buyer().seal(SALT, PAYLOAD)
    refused(lambda: sealed.open_request(secret, order(seq), order_hash, request))


def test_request_that_names_another_key_than_it_was_sealed_to_does_not_open() -> None:
    request = buyer(node=OTHER_NODE).seal(SALT, PAYLOAD)
    lying = MAGIC + sealing.public_key(NODE) + request[len(MAGIC) + 32 :]
    refused(lambda: sealed.open_request(NODE, order(), ORDER_HASH, lying))


@pytest.mark.parametrize("place", [0, len(MAGIC), len(MAGIC) + 32, -1])
def test_altered_request_does_not_open(place: int) -> None:
    request = bytearray(buyer().seal(SALT, PAYLOAD))
    request[place] ^= 1
    refused(lambda: sealed.open_request(NODE, order(), ORDER_HASH, bytes(request)))


@pytest.mark.parametrize("data", [b"", MAGIC, MAGIC + bytes(31), MAGIC + bytes(48), PAYLOAD])
def test_what_is_no_sealed_request_is_refused(data: bytes) -> None:
    refused(lambda: sealed.open_request(NODE, order(), ORDER_HASH, data))


def test_chunk_opens_at_its_index_alone() -> None:
    mine = buyer().responses
    first, second, annex = mine.seal_chunk(0, b"a"), mine.seal_chunk(1, b"b"), mine.seal_annex(b"a")
    for index, data in ((1, first), (0, second), (0, annex), (0, first[:-1]), (0, b"a"), (0, b"")):
        refused(lambda index=index, data=data: mine.open_chunk(index, data))  # type: ignore[misc]
    refused(lambda: mine.open_annex(first))
    refused(lambda: buyer(seq=2).responses.open_chunk(0, first))


def test_lengths_are_told_in_whole_blocks() -> None:
    mine = buyer().responses
    lengths = {len(mine.seal_chunk(0, b"x" * count)) for count in range(BLOCK_BYTES - 3)}
    assert len(lengths) == 1
    assert len(mine.seal_chunk(0, b"x" * (BLOCK_BYTES - 3))) == lengths.pop() + BLOCK_BYTES


@pytest.mark.parametrize("key", [bytes(32), b"", b"\x01" + bytes(31), bytes(31)])
def test_key_whose_seals_everybody_opens_is_none_to_seal_to(key: bytes) -> None:
    assert not sealed.can_seal_to(key)
    assert sealed.can_seal_to(sealing.public_key(NODE))


def test_each_order_has_a_reply_key_of_its_own() -> None:
    made = {
        sealed.reply_secret(KEY, bytes(32), 1, b"\x01" * 32),
        sealed.reply_secret(NODE, bytes(32), 1, b"\x01" * 32),
        sealed.reply_secret(KEY, b"\x01" * 32, 1, b"\x01" * 32),
        sealed.reply_secret(KEY, bytes(32), 2, b"\x01" * 32),
        sealed.reply_secret(KEY, bytes(32), 1, b"\x02" * 32),
    }
    assert len(made) == 5


def test_no_secret_is_shown() -> None:
    mine = buyer()
    shown = repr(mine) + repr(mine.responses)
    assert "secret=" not in shown
    assert mine.responses.secret.hex() not in shown

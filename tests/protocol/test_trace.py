"""Blocks of a trace: packed, bound to their order, opened one by one."""

from __future__ import annotations

import base64
import random

import pytest

from marketplace.protocol import merkle
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.trace import (
    OpenBlock,
    TraceBlock,
    decode_blocks,
    encode_blocks,
    leaf,
    open_block,
    pack_tokens,
    trace_root,
    unpack_tokens,
)

ORDER = b"\x05" * 32


def blocks(count: int) -> list[TraceBlock]:
    return [
        TraceBlock(
            token_ids=tuple(range(i * 32, i * 32 + 32)), digest=keccak(bytes([i])), fingerprint=bytes([i] * 4)
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("count", range(1, 18))
def test_every_leaf_climbs_to_the_root_by_its_path_and_no_other(count: int) -> None:
    leaves = [keccak(bytes([i])) for i in range(count)]
    root = merkle.root(leaves)
    for i, one in enumerate(leaves):
        steps = merkle.path(leaves, i)
        assert merkle.climb(one, i, count, steps) == root
        assert merkle.climb(keccak(one), i, count, steps) != root
        with pytest.raises(ValueError, match="too long"):
            merkle.climb(one, i, count, (*steps, bytes(32)))
        if steps:
            with pytest.raises(ValueError, match="too short"):
                merkle.climb(one, i, count, steps[:-1])
    with pytest.raises(ValueError, match="leaf"):
        merkle.climb(leaves[0], count, count, ())


def test_leaf_binds_order_place_tokens_digest_and_fingerprint() -> None:
    (block,) = blocks(1)
    base = leaf(ORDER, 0, block)
    assert base == keccak(
        b"\x03" + ORDER + bytes(4) + (32).to_bytes(4, "big")
        + b"".join(i.to_bytes(4, "big") for i in range(32)) + block.digest + block.fingerprint
    )  # fmt: skip
    others = [
        leaf(bytes(32), 0, block),
        leaf(ORDER, 1, block),
        leaf(ORDER, 0, TraceBlock(token_ids=(1,), digest=block.digest, fingerprint=block.fingerprint)),
        leaf(ORDER, 0, TraceBlock(token_ids=block.token_ids, digest=bytes(32), fingerprint=b"\0" * 4)),
        leaf(ORDER, 0, TraceBlock(token_ids=block.token_ids, digest=block.digest, fingerprint=b"")),
    ]
    assert len({base, *others}) == len(others) + 1


def test_one_block_opens_to_the_root_of_its_own_job_only() -> None:
    made = blocks(5)
    root = trace_root(ORDER, made)
    for number in range(5):
        opened = OpenBlock.from_json(open_block(ORDER, made, number).to_json())
        assert opened.root(ORDER) == root
        assert opened.root(bytes(32)) != root
    with pytest.raises(ValueError, match="block 5 of 5"):
        open_block(ORDER, made, 5)


def test_blocks_survive_their_bytes() -> None:
    assert decode_blocks(encode_blocks(blocks(3))) == tuple(blocks(3))
    with pytest.raises(ValueError, match="not the blocks"):
        decode_blocks(b'[{"digest":"0x"}]')


def test_packed_tokens_have_one_form_each() -> None:
    rng = random.Random(4)  # noqa: S311 - test data
    tokens = tuple(rng.choice([0, 1, 127, 128, 16_383, 16_384, 49_151, (1 << 32) - 1]) for _ in range(500))
    assert unpack_tokens(pack_tokens(tokens)) == tokens
    assert unpack_tokens("") == ()
    # Half a number, one with a needless byte, one beyond 32 bits, one without end.
    for bad in (b"\x80", b"\x80\x00", b"\xff\xff\xff\xff\x7f", b"\x80" * 9):
        with pytest.raises(ValueError, match=r"canonical|32 bits"):
            unpack_tokens(base64.b64encode(bad).decode())


def test_root_is_the_one_that_receipts_already_hold() -> None:
    assert to_hex(trace_root(ORDER, blocks(5))) == (
        "0x29f8a599617c3a5a72f15d5434b5118f03f7434fe60a6688bfcc00bb91dc4583"
    )

"""What a node commits to while it generates: blocks of tokens and of what the model computed for them.

A block covers 32 tokens of the answer, the last one what is left. Its leaf binds the order, so that a trace
of one job is worth nothing for another. The root of the leaves is the annex's `trace_root`; one block can be
opened alone, with its path (PROTOCOL §7).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from marketplace.protocol import merkle
from marketplace.protocol.hexes import from_hex, keccak, to_hex
from marketplace.protocol.payloads import canonical_json

BLOCK_TOKENS: Final = 32
_SEVEN: Final = 0x7F
_MORE: Final = 0x80
_ID_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceBlock:
    """One block as it was computed.

    Attributes:
        token_ids: of the answer, at most `BLOCK_TOKENS`.
        digest: SHA-256 of the last hidden state behind each token, raw bytes of the model's element type.
        fingerprint: a few numbers of some of these states; what they are is in the profile.
    """

    token_ids: tuple[int, ...]
    digest: bytes
    fingerprint: bytes

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Block of its JSON form. Raises `ValueError`, `KeyError` or `TypeError`."""
        return cls(
            token_ids=unpack_tokens(data["token_ids"]),
            digest=from_hex(data["digest"], 32),
            fingerprint=base64.b64decode(data["fingerprint"], validate=True),
        )

    def to_json(self) -> dict[str, str]:
        """The form `from_json` reads."""
        return {
            "token_ids": pack_tokens(self.token_ids),
            "digest": to_hex(self.digest),
            "fingerprint": base64.b64encode(self.fingerprint).decode(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBlock:
    """One block of a trace of `count`, and the siblings from its leaf to the root."""

    number: int
    count: int
    block: TraceBlock
    path: tuple[bytes, ...]

    def root(self, order_hash: bytes) -> bytes:
        """The root this block leads to. Raises `ValueError` when the path has another length."""
        return merkle.climb(leaf(order_hash, self.number, self.block), self.number, self.count, self.path)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Opened block of its JSON form. Raises `ValueError`, `KeyError` or `TypeError`."""
        return cls(
            number=int(data["number"]),
            count=int(data["count"]),
            block=TraceBlock.from_json(data["block"]),
            path=tuple(from_hex(step, 32) for step in data["path"]),
        )

    def to_json(self) -> dict[str, Any]:
        """The form `from_json` reads."""
        return {
            "number": self.number,
            "count": self.count,
            "block": self.block.to_json(),
            "path": [to_hex(step) for step in self.path],
        }


def leaf(order_hash: bytes, number: int, block: TraceBlock) -> bytes:
    """`keccak(0x03 ‖ order hash ‖ u32 number ‖ u32 count ‖ u32 token ids ‖ digest ‖ fingerprint)`."""
    ids = b"".join(token.to_bytes(_ID_BYTES, "big") for token in block.token_ids)
    count = len(block.token_ids).to_bytes(_ID_BYTES, "big")
    place = number.to_bytes(_ID_BYTES, "big")
    return keccak(b"\x03" + order_hash + place + count + ids + block.digest + block.fingerprint)


def trace_root(order_hash: bytes, blocks: Sequence[TraceBlock]) -> bytes:
    """Merkle root over the blocks of one job, in order; zero for none."""
    return merkle.root(_leaves(order_hash, blocks))


def open_block(order_hash: bytes, blocks: Sequence[TraceBlock], number: int) -> OpenBlock:
    """A block with its path. Raises `ValueError` when there is no such block."""
    if not 0 <= number < len(blocks):
        raise ValueError(f"block {number} of {len(blocks)}")
    path = merkle.path(_leaves(order_hash, blocks), number)
    return OpenBlock(number=number, count=len(blocks), block=blocks[number], path=path)


def encode_blocks(blocks: Iterable[TraceBlock]) -> bytes:
    """All blocks of a job as canonical JSON."""
    return canonical_json([block.to_json() for block in blocks])


def decode_blocks(data: bytes) -> tuple[TraceBlock, ...]:
    """Blocks of their bytes. Raises `ValueError`."""
    try:
        return tuple(TraceBlock.from_json(row) for row in json.loads(data))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not the blocks of a trace: {error}") from error


def pack_tokens(token_ids: Iterable[int]) -> str:
    """Token ids as text: base64 of unsigned LEB128, two or three bytes each."""
    packed = bytearray()
    for token in token_ids:
        rest = token
        while rest > _SEVEN:
            packed.append(rest & _SEVEN | _MORE)
            rest >>= 7
        packed.append(rest)
    return base64.b64encode(bytes(packed)).decode()


def unpack_tokens(text: str) -> tuple[int, ...]:
    """Token ids of their text. Raises `ValueError`."""
    found: list[int] = []
    value = shift = 0
    for byte in base64.b64decode(text, validate=True):
        value |= (byte & _SEVEN) << shift
        shift += 7
        if not byte & _MORE:
            found.append(value)
            value = shift = 0
        elif shift > 8 * _ID_BYTES:
            raise ValueError("a token id does not fit into 32 bits")
    # Spare bits or zero bytes would let two texts stand for one list.
    if shift or pack_tokens(found) != text:
        raise ValueError("token ids are not in their canonical form")
    if found and max(found) >> (8 * _ID_BYTES):
        raise ValueError("a token id does not fit into 32 bits")
    return tuple(found)


def _leaves(order_hash: bytes, blocks: Sequence[TraceBlock]) -> list[bytes]:
    return [leaf(order_hash, number, block) for number, block in enumerate(blocks)]

"""Hashes of requests and responses, and the append-only Merkle tree (shape of RFC 6962).

Leaves and inner nodes carry different prefixes, so that neither can be passed off as the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marketplace.protocol.hexes import ZERO32, keccak


def request_hash(salt: bytes, payload: bytes) -> bytes:
    """`keccak(0x00 ‖ salt ‖ payload)`; the salt is 32 bytes and never goes on-chain."""
    return keccak(b"\x00" + salt + payload)


def response_leaf(salt: bytes, index: int, chunk: bytes) -> bytes:
    """`keccak(0x01 ‖ salt ‖ u32 index ‖ chunk)`."""
    return keccak(b"\x01" + salt + index.to_bytes(4, "big") + chunk)


def response_hash(salt: bytes, chunks: Sequence[bytes]) -> bytes:
    """Merkle root over the chunks of one response, in order."""
    return root([response_leaf(salt, i, chunk) for i, chunk in enumerate(chunks)])


def root(leaves: Sequence[bytes]) -> bytes:
    """Root of 32-byte leaves; zero for none, the leaf itself for one."""
    level = list(leaves)
    if not level:
        return ZERO32
    while len(level) > 1:
        paired = [_join(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        # An odd node moves up unchanged: the tree stays a prefix of every longer one.
        level = paired + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Siblings of a leaf from the bottom up; a node that moves up unpaired has none."""
    steps: list[bytes] = []
    level, at = list(leaves), index
    while len(level) > 1:
        sibling = at ^ 1
        if sibling < len(level):
            steps.append(level[sibling])
        level = [root(level[i : i + 2]) for i in range(0, len(level), 2)]
        at >>= 1
    return tuple(steps)


def climb(leaf: bytes, index: int, count: int, siblings: Sequence[bytes]) -> bytes:
    """Root that a leaf at `index` of `count` leads to by its siblings.

    Raises:
        ValueError: no such place, or another number of siblings than the place has.
    """
    if not 0 <= index < count:
        raise ValueError(f"leaf {index} of {count}")
    node, at, width, left = leaf, index, count, list(siblings)
    while width > 1:
        if at ^ 1 < width:
            if not left:
                raise ValueError("the path is too short")
            sibling = left.pop(0)
            node = _join(sibling, node) if at & 1 else _join(node, sibling)
        at, width = at >> 1, (width + 1) >> 1
    if left:
        raise ValueError("the path is too long")
    return node


@dataclass(frozen=True, slots=True)
class Frontier:
    """What an append-only tree must remember: its leaf count and the roots of its full subtrees."""

    count: int = 0
    peaks: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Frontier:
        """The tree with one more leaf; O(log n)."""
        peaks, size, node = list(self.peaks), self.count, leaf
        while size & 1:
            node = _join(peaks.pop(), node)
            size >>= 1
        return Frontier(self.count + 1, (*peaks, node))

    def root(self) -> bytes:
        """Same value as `root` over all leaves appended."""
        if not self.peaks:
            return ZERO32
        node = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            node = _join(peak, node)
        return node


def _join(left: bytes, right: bytes) -> bytes:
    return keccak(b"\x02" + left + right)

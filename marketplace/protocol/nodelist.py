"""The list of nodes a key may pay, as a Merkle tree that the escrow checks (OpenZeppelin's: pairs sorted)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from marketplace.protocol.hexes import ZERO32, keccak


def root(node_ids: Collection[int]) -> bytes:
    """Root over these nodes; zero for none, which allows any node."""
    return _levels(node_ids)[-1][0] if node_ids else ZERO32


def proof(node_ids: Collection[int], node_id: int) -> bytes:
    """Siblings from leaf to root, 32 bytes each, to be appended to the key's signature.

    Raises:
        ValueError: the node is not on the list.
    """
    if node_id not in node_ids:
        raise ValueError(f"node {node_id} is not on the list {sorted(node_ids)}")
    steps: list[bytes] = []
    wanted = _leaf(node_id)
    for level in _levels(node_ids)[:-1]:
        sibling = level.index(wanted) ^ 1
        if sibling < len(level):
            steps.append(level[sibling])
            wanted = _pair(wanted, level[sibling])
    return b"".join(steps)


def _levels(node_ids: Collection[int]) -> list[Sequence[bytes]]:
    level: Sequence[bytes] = sorted(_leaf(node_id) for node_id in set(node_ids))
    levels = [level]
    while len(level) > 1:
        pairs = [level[i : i + 2] for i in range(0, len(level), 2)]
        level = [_pair(*pair) if len(pair) > 1 else pair[0] for pair in pairs]
        levels.append(level)
    return levels


def _leaf(node_id: int) -> bytes:
    # Hashed twice, so that no inner node of the tree can pass for a leaf.
    return keccak(keccak(node_id.to_bytes(32, "big")))


def _pair(a: bytes, b: bytes) -> bytes:
    return keccak(min(a, b) + max(a, b))

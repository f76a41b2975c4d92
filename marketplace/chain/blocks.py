"""What to roll back and what to fetch; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.errors import ChainTrouble, ErrorCode

WINDOW: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRef:
    """One block. `timestamp` is in Unix seconds."""

    number: int
    hash: bytes
    parent: bytes
    timestamp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReorgPlan:
    """What a follower does next, in this order.

    Attributes:
        rollback_to: undo everything above this block; None: nothing to undo.
        fetch_from: first block to fetch.
        fetch_to: last block to fetch; below `fetch_from` when there is nothing to fetch.
    """

    rollback_to: int | None
    fetch_from: int
    fetch_to: int


def compare(
    known: Sequence[tuple[int, bytes]], head: int, hash_of: Callable[[int], bytes | None]
) -> dict[int, bytes]:
    """The chain's hashes at known numbers, from the newest it has down to the first that agrees."""
    canonical: dict[int, bytes] = {}
    for number, known_hash in reversed(known):
        found = hash_of(number) if number <= head else None
        if found is None:
            continue
        canonical[number] = found
        if found == known_hash:
            break
    return canonical


def plan(
    known: Sequence[tuple[int, bytes]], canonical: Mapping[int, bytes], head: int, *, start: int
) -> ReorgPlan:
    """What follows from the chain as it is now.

    A chain that is merely shorter than what is known, and agrees as far as it goes, is a node that lags:
    nothing is undone, the plan is empty. It becomes a reorganisation once a block differs.

    Args:
        known: stored (number, hash), ascending.
        canonical: what `compare` found.
        head: the chain's newest block number.
        start: first block worth following; the deployment's.

    Raises:
        ChainTrouble: nothing in the stored window agrees and blocks before it were followed too.
    """
    if not known:
        return ReorgPlan(rollback_to=None, fetch_from=start, fetch_to=head)
    newest = known[-1][0]
    compared = [(n, canonical[n] == block_hash) for n, block_hash in known if n in canonical]
    agreed = max((number for number, same in compared if same), default=None)
    if agreed is None and compared and known[0][0] > start:
        raise ChainTrouble(
            ErrorCode.WRONG_CHAIN,
            f"a reorganisation is deeper than the {len(known)} blocks kept; follow anew from {start}",
            oldest=known[0][0],
        )
    if all(same for _, same in compared):
        return ReorgPlan(rollback_to=None, fetch_from=newest + 1, fetch_to=head)
    common = start - 1 if agreed is None else agreed
    return ReorgPlan(rollback_to=common, fetch_from=common + 1, fetch_to=head)

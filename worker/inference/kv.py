"""Keys and values of many sequences, kept so that attention needs no call of its own for each.

Sequences whose lengths round up to the same number of positions lie side by side in one *slab*, padded with
zeros, and attend in one call. A sequence that outgrows its slab moves to the next. Rounding is by length
alone, so how a sequence is padded, and with it every bit of its result, does not depend on its neighbours.
"""

from __future__ import annotations

import weakref
from typing import Final

import torch
from torch import Tensor

# Short lengths round up to multiples of this, from 256 on to an eighth of the next power of two.
_LEAST_STEP: Final = 32


def padded(length: int) -> int:
    """Positions that a sequence of `length` is padded to; at least one token."""
    step = max(_LEAST_STEP, 1 << max(0, (length - 1).bit_length() - 3))
    return -(-length // step) * step


def least(positions: int) -> int:
    """The shortest length that is padded to so many positions."""
    shorter = positions - _LEAST_STEP
    while shorter > 0 and padded(shorter) == positions:
        shorter -= _LEAST_STEP
    return shorter + 1


class KvCache:
    """Keys and values of one sequence, room for `capacity` tokens in every layer.

    Takes memory with its first tokens and as it grows; gives it back when nobody holds it any more.
    """

    __slots__ = ("__weakref__", "capacity", "length", "row", "slab")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self.slab: Slab | None = None
        self.row = 0

    @property
    def layers(self) -> int:
        """How many layers have stored something."""
        return len(self.slab.layers) if self.slab is not None else 0

    def stored(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values so far, `(tokens, heads, dim)` each."""
        if self.slab is None:
            raise LookupError("nothing is stored yet")
        keys, values = self.slab.layers[layer]
        return keys[self.row, : self.length], values[self.row, : self.length]


class Slab:
    """Sequences side by side, each with `positions` places in every layer."""

    def __init__(self, positions: int, room: int = 1) -> None:
        self.positions = positions
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._room = room
        self._rows: list[weakref.ref[KvCache]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def layer(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values, `(rows, positions, heads, dim)`; made like the given ones if new."""
        if layer not in self.layers:
            self.layers[layer] = (self._zeros(key), self._zeros(value))
        return self.layers[layer]

    def take(self, cache: KvCache) -> None:
        """Moves a sequence here; places behind its tokens are zero, as attention expects."""
        if len(self._rows) == self._room:
            self._grow()
        source, old = cache.slab, cache.row
        row = len(self._rows)
        self._rows.append(weakref.ref(cache))
        if source is not None:
            for layer, pair in source.layers.items():
                for here, there in zip(self.layer(layer, *pair), pair, strict=True):
                    here[row, : cache.length] = there[old, : cache.length]
            source.drop(old)
        for pair in self.layers.values():
            for here in pair:
                here[row, cache.length :] = 0
        cache.slab, cache.row = self, row

    def drop(self, row: int) -> None:
        """Frees a row; the last one fills its place."""
        last = self._rows.pop()
        if row == len(self._rows):
            return
        moved = last()
        self._rows[row] = last
        if moved is not None:
            for pair in self.layers.values():
                for here in pair:
                    here[row] = here[len(self._rows)]
            moved.row = row

    def sweep(self) -> None:
        """Frees the rows of sequences that are gone, and memory that has become far too much."""
        for row in reversed(range(len(self._rows))):
            if self._rows[row]() is None:
                self.drop(row)
        if not self._rows:
            self.layers, self._room = {}, 1

    def _zeros(self, like: Tensor) -> Tensor:
        return like.new_zeros((self._room, self.positions, *like.shape[-2:]))

    def _grow(self) -> None:
        self._room *= 2
        for layer, pair in self.layers.items():
            keys, values = (self._larger(old) for old in pair)
            self.layers[layer] = (keys, values)

    def _larger(self, old: Tensor) -> Tensor:
        new = self._zeros(old)
        new[: old.shape[0]] = old
        return new


class KvPool:
    """All slabs of a model."""

    def __init__(self) -> None:
        self._shared: dict[int, Slab] = {}

    def sweep(self) -> None:
        """Frees what sequences that are gone have left."""
        for positions, slab in list(self._shared.items()):
            slab.sweep()
            if not len(slab):
                del self._shared[positions]

    def alone(self, cache: KvCache, length: int) -> Slab:
        """A slab with room for `length` tokens and this sequence only: for prompts and replays."""
        slab = cache.slab
        if slab is None or slab is self._shared.get(slab.positions) or slab.positions < length:
            known = slab.positions if slab is not None else 0
            # Twice as large each time: a long prompt comes in many blocks.
            new = Slab(padded(max(length, min(2 * known, cache.capacity))))
            new.take(cache)
            return new
        return slab

    def together(self, cache: KvCache, length: int) -> Slab:
        """The slab of all sequences that are padded like one of `length`."""
        positions = padded(length)
        slab = self._shared.setdefault(positions, Slab(positions))
        if cache.slab is not slab:
            slab.take(cache)
        return slab


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention mask to add to scores: 0 where `seen`, else minus infinity."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))

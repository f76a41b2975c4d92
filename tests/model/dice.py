"""Choices out of a few bytes: zeros choose what is ordinary, so that a failure shrinks towards it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

from hypothesis import strategies as st

from tests.model.records import U64, U128

T = TypeVar("T")
THROW: Final = st.binary(min_size=20, max_size=20)
_ORDINARY: Final = 216
_PARTS: Final = 200


class Dice:
    """Reads bytes one after the other; behind the last all are 0."""

    __slots__ = ("_at", "_thrown")

    def __init__(self, thrown: bytes) -> None:
        self._thrown = thrown
        self._at = 0

    def byte(self) -> int:
        self._at += 1
        return self._thrown[self._at - 1] if self._at <= len(self._thrown) else 0

    def pick(self, options: Sequence[T]) -> T:
        return options[self.byte() % len(options)]

    def odd(self, *faults: str) -> str:
        """Mostly nothing, otherwise one of these faults."""
        thrown = self.byte()
        return "" if thrown < _ORDINARY else faults[(thrown - _ORDINARY) % len(faults)]

    def amount(self, limit: int) -> int:
        """Mostly a part of the limit; otherwise its edge, nothing, or what fits no field."""
        thrown = self.byte()
        if thrown < _PARTS:
            return limit * (self.byte() + 1) // 256
        edges = (limit, limit, limit + 1, max(limit - 1, 0), 0, self.byte(), U64, U64 + 1, U128, U128 + 1)
        return edges[(thrown - _PARTS) * len(edges) // (256 - _PARTS)]

"""Keys and values of prompt beginnings that several jobs share, such as a system prompt.

Prompts are read in blocks that start at multiples of their size, each computed alone from the tokens up to
its end. So a whole block behind equal tokens has equal bits in every job, and may be copied instead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

Stored = list[tuple[Tensor, Tensor]]


class Prefixes:
    """Blocks by all tokens up to their end; those not used for longest make room."""

    def __init__(self, most_tokens: int) -> None:
        """Keeps blocks of up to `most_tokens` tokens together; 0 keeps none."""
        self._most_tokens = most_tokens
        self._tokens = 0
        self._blocks: OrderedDict[tuple[int, ...], Stored] = OrderedDict()

    def find(self, tokens: Sequence[int]) -> Stored | None:
        """The last block of `tokens`, every layer's keys and values, if it was kept."""
        key = tuple(tokens)
        if key not in self._blocks:
            return None
        self._blocks.move_to_end(key)
        return self._blocks[key]

    def keep(self, tokens: Sequence[int], block: Stored) -> None:
        """Keeps the last block of `tokens`."""
        size = len(block[0][0])
        if size > self._most_tokens or self.find(tokens) is not None:
            return
        while self._tokens + size > self._most_tokens:
            _, dropped = self._blocks.popitem(last=False)
            self._tokens -= len(dropped[0][0])
        self._blocks[tuple(tokens)] = block
        self._tokens += size

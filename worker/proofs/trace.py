"""Gathers what a trace commits to while an answer is generated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from marketplace.protocol.trace import BLOCK_TOKENS, TraceBlock
from worker.proofs.fingerprint import fingerprint

_BITS: Final = torch.uint8


class TraceWriter:
    """Blocks of one answer, new or resumed. Tokens and rows may come apart; the n-th of each belong together.

    A row is the last hidden state from which the token was chosen: what the model's head turned into scores.
    """

    def __init__(self, replayed: Iterable[int] = ()) -> None:
        """`replayed` are tokens of an earlier run whose rows are computed again."""
        self._tokens = list(replayed)
        self._rows: list[Tensor] = []
        self._blocks: list[TraceBlock] = []

    def see(self, rows: Tensor) -> None:
        """Adds rows `(tokens, width)`, in order; they must not change any more."""
        self._rows += rows.cpu().unbind()
        self._close_full()

    def chose(self, token: int) -> None:
        """Adds the token chosen from the next row."""
        self._tokens.append(token)
        self._close_full()

    def end(self) -> tuple[TraceBlock, ...]:
        """All blocks, the last as long as it is; none when rows are missing, as after a cut-off replay."""
        done = len(self._blocks) * BLOCK_TOKENS
        rest = self._tokens[done:]
        if len(self._rows) < len(rest):
            return ()
        last = (_block(rest, self._rows[: len(rest)]),) if rest else ()
        return (*self._blocks, *last)

    def _close_full(self) -> None:
        while True:
            start = len(self._blocks) * BLOCK_TOKENS
            if len(self._rows) < BLOCK_TOKENS or len(self._tokens) - start < BLOCK_TOKENS:
                return
            tokens = self._tokens[start : start + BLOCK_TOKENS]
            self._blocks.append(_block(tokens, self._rows[:BLOCK_TOKENS]))
            del self._rows[:BLOCK_TOKENS]


def raw_bytes(rows: Tensor) -> bytes:
    """The rows' bytes as the model's element type has them."""
    return rows.contiguous().view(_BITS).numpy().tobytes()


def _block(tokens: list[int], rows: list[Tensor]) -> TraceBlock:
    hidden = torch.stack(rows)
    digest = hashlib.sha256(raw_bytes(hidden)).digest()
    return TraceBlock(token_ids=tuple(tokens), digest=digest, fingerprint=fingerprint(hidden))

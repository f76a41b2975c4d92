"""Attention over many sequences of different lengths, as transformers calls it.

The model sees one flat row of tokens; a `Batch` says which tokens belong to which sequence. Two ways:

- a *prompt* attends alone, its shapes depend on the prompt only;
- *single* tokens, generated or replayed, attend in groups over sequences padded to the same length. A
  token's result depends on its own length and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from worker.inference.kv import KvCache, Slab, additive

NAME: Final = "wattline_ragged"
_WINDOW_STEP: Final = 64


@dataclass(slots=True)
class Prompt:
    """Tokens `start` … `start + count` of the flat row: the next of one sequence, which attend alone."""

    cache: KvCache
    slab: Slab
    start: int
    count: int
    _masks: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)

    def attend(self, call: Call) -> Tensor:
        """`(count, heads, dim)`."""
        past, row = self.cache.length, self.cache.row
        keys, values = self.slab.layer(call.layer, call.key, call.value)
        part = slice(self.start, self.start + self.count)
        end = past + self.count
        keys[row, past:end] = call.key[part]
        values[row, past:end] = call.value[part]
        window = call.window
        since = max(0, past + 1 - window) if window else 0
        query = call.query[part].transpose(0, 1)[None]
        seen = (
            keys[row : row + 1, since:end].transpose(1, 2),
            values[row : row + 1, since:end].transpose(1, 2),
        )
        if not past and call.is_plain and not (window and window < end):
            out = functional.scaled_dot_product_attention(
                query, *seen, is_causal=True, scale=call.scale, enable_gqa=True
            )
            return out[0].transpose(0, 1)
        return call.score(query, *seen, self._mask(since, window, query))[0].transpose(0, 1)

    def _mask(self, since: int, window: int | None, like: Tensor) -> Tensor:
        """What each token may see from position `since` on, `(count, positions)`; kept for all layers."""
        key = (window or 0, like.dtype)
        if key not in self._masks:
            past, end = self.cache.length, self.cache.length + self.count
            own = torch.arange(past, end, device=like.device)[:, None]
            other = torch.arange(since, end, device=like.device)[None, :]
            seen = (other <= own) & (other > own - window) if window else other <= own
            self._masks[key] = additive(seen, like.dtype)
        return self._masks[key]


@dataclass(slots=True)
class Singles:
    """Tokens from `start` on, one of each row of a slab, or all of one `row`, a group of a replay.

    `lengths` count each token itself; all are padded to `positions`, and `least` is the shortest that is.
    """

    slab: Slab
    start: int
    rows: Tensor
    lengths: Tensor
    positions: int
    least: int
    whole: bool
    row: int | None = None
    _masks: dict[tuple[int, torch.dtype], tuple[int, Tensor]] = field(default_factory=dict)

    def write(self, call: Call) -> None:
        """Stores the new keys and values."""
        places = self.rows * self.slab.positions + self.lengths - 1
        part = slice(self.start, self.start + len(self.lengths))
        for stored, new in zip(
            self.slab.layer(call.layer, call.key, call.value), (call.key, call.value), strict=True
        ):
            stored.view(-1, *stored.shape[2:]).index_copy_(0, places, new[part])

    def attend(self, call: Call) -> Tensor:
        """`(tokens, heads, dim)`."""
        since, mask = self._mask(call.window, call.query.dtype)
        stored = self.slab.layer(call.layer, call.key, call.value)
        keys, values = (self._rows(one)[:, since : self.positions].transpose(1, 2) for one in stored)
        tokens = len(self.lengths)
        query = call.query[self.start : self.start + tokens]
        heads, shared = query.shape[1], keys.shape[1]
        # Query heads that share a key head are rows of one product.
        grouped = query.reshape(tokens, shared, heads // shared, -1)
        return call.score(grouped, keys, values, mask).reshape(tokens, heads, -1)

    def _rows(self, stored: Tensor) -> Tensor:
        tokens = len(self.lengths)
        if self.row is not None:
            return stored[self.row : self.row + 1].expand(tokens, *stored.shape[1:])
        return stored[:tokens] if self.whole else stored[self.rows]

    def _mask(self, window: int | None, dtype: torch.dtype) -> tuple[int, Tensor]:
        """First position anyone may see, and the mask from there on, `(tokens, 1, 1, positions)`."""
        key = (window or 0, dtype)
        if key not in self._masks:
            since = max(0, self.least - window) // _WINDOW_STEP * _WINDOW_STEP if window else 0
            other = torch.arange(since, self.positions, device=self.lengths.device)[None, :]
            seen = other < self.lengths[:, None]
            if window:
                seen &= other >= self.lengths[:, None] - window
            self._masks[key] = (since, additive(seen, dtype)[:, None, None, :])
        return self._masks[key]


@dataclass(slots=True, kw_only=True)
class Batch:
    """Who attends to what in one pass; `tokens` counts the flat row, filling at its end included."""

    prompts: list[Prompt] = field(default_factory=list)
    singles: list[Singles] = field(default_factory=list)
    tokens: int = 0

    def attend(self, call: Call) -> Tensor:
        """Attention of one layer, `(tokens, heads, dim)`."""
        for group in self.singles:
            group.write(call)
        parts = [part.attend(call) for part in self.prompts] + [part.attend(call) for part in self.singles]
        if missing := self.tokens - sum(len(part) for part in parts):
            parts.append(parts[0].new_zeros((missing, *parts[0].shape[1:])))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(slots=True, kw_only=True)
class Call:
    """One layer's attention; query, key and value are `(tokens, heads, dim)`."""

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scale: float | None
    window: int | None
    cap: float | None
    sinks: Tensor | None

    @property
    def is_plain(self) -> bool:
        """Whether torch's own attention can do it."""
        return self.cap is None and self.sinks is None

    def score(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Attention with a mask to add; `(rows, heads, tokens, dim)` in and out.

        Query heads are a multiple of key heads, or grouped so that they are as many.
        """
        if self.is_plain:
            gqa = query.shape[1] != keys.shape[1]
            return functional.scaled_dot_product_attention(
                query, keys, values, attn_mask=mask, scale=self.scale, enable_gqa=gqa
            )
        return self._spelled_out(query, keys, values, mask)

    def _spelled_out(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """With soft caps and sinks, in the order of operations of transformers' own functions."""
        rows, heads, tokens, dim = query.shape
        shared = keys.shape[1]
        stacked = query.reshape(rows, shared, -1, dim)
        scale = self.scale if self.scale is not None else dim**-0.5
        scores = _row_by_row(stacked, keys.transpose(2, 3)) * scale
        if self.cap is not None:
            scores = torch.tanh(scores / self.cap) * self.cap
        scores = scores.reshape(rows, shared, -1, tokens, scores.shape[-1]) + mask.unsqueeze(-3)
        scores = scores.float()
        weights = torch.softmax(scores, dim=-1) if self.sinks is None else _with_sinks(scores, self.sinks)
        weights = weights.to(query.dtype).reshape(rows, shared, -1, weights.shape[-1])
        product = _row_by_row(weights, values)
        return product.reshape(rows, heads, tokens, -1)


def _row_by_row(left: Tensor, right: Tensor) -> Tensor:
    """Products of `(heads, …)` matrices, a row of the batch at a time.

    Of all rows at once, a library may sum in an order that depends on how many they are: MKL does on AMD.
    """
    pairs = zip(left.unbind(), right.unbind(), strict=True)
    return torch.stack([torch.matmul(one, other) for one, other in pairs])


def _with_sinks(scores: Tensor, sinks: Tensor) -> Tensor:
    """Softmax in which a sink takes a share of each head's attention and gives nothing.

    `scores` are `(rows, key heads, query heads, tokens, positions)`, or query heads in the place of tokens.
    """
    per_head = sinks.float().reshape(1, scores.shape[1], -1, 1, 1)
    if per_head.shape[2] != scores.shape[2]:
        per_head = per_head.transpose(2, 3)
    both = torch.cat([scores, per_head.expand((*scores.shape[:-1], 1))], dim=-1)
    return torch.softmax(both, dim=-1)[..., :-1]

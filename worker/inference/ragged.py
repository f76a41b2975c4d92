"""Runs Hugging Face model code on sequences of different lengths without padding them.

The model sees one flat row of tokens; an attention function registered with transformers sends each
sequence's part to its own keys and values. Two kinds of pass:

- a *prompt block* runs alone, so its shapes depend on the prompt only;
- *generated tokens* of many sequences run together, every matrix product in tiles of a fixed number of
  rows and attention row by row, so that a row's bits do not depend on its neighbours. Replaying tokens of
  an earlier run takes the same path, which is why a resumed answer goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812  # everybody's name for it
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

_ATTENTION: Final = "wattline_ragged"


class KvCache:
    """Keys and values of one sequence, room for `capacity` tokens in every layer."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Stores `(heads, tokens, dim)` behind the current length; views of everything up to there."""
        if layer not in self._layers:
            self._layers[layer] = (self._room(key), self._room(value))
        keys, values = self._layers[layer]
        end = self.length + key.shape[1]
        keys[:, self.length : end] = key
        values[:, self.length : end] = value
        return keys[:, :end], values[:, :end]

    @property
    def layers(self) -> int:
        """How many layers have stored something."""
        return len(self._layers)

    def _room(self, like: Tensor) -> Tensor:
        return like.new_empty((like.shape[0], self.capacity, like.shape[2]))


@dataclass(frozen=True, slots=True)
class Span:
    """Where a sequence's new tokens lie in the flat row; `rowwise` ones attend one at a time."""

    cache: KvCache
    start: int
    count: int
    rowwise: bool


class RaggedModel:
    """A causal language model with its own cache per sequence. One thread at a time."""

    def __init__(self, path: Path, *, device: str, tile_rows: int) -> None:
        disable_progress_bar()
        AttentionInterface.register(_ATTENTION, _attend)
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype="auto",
            attn_implementation=_ATTENTION,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        self._model: Any = model.to(device).eval()
        self._device = device
        self._tiling = Tiling(tile_rows)
        for module in self._model.modules():
            if isinstance(module, nn.Linear):
                module.forward = partial(self._tiling.linear, module)  # type: ignore[method-assign]

        self._check()

    @property
    def dtype(self) -> str:
        """Element type of weights and activations."""
        return str(self._model.dtype).removeprefix("torch.")

    def prompt_block(self, cache: KvCache, tokens: Sequence[int]) -> Tensor:
        """Computes the next prompt tokens; scores after the last, `(vocabulary,)` float32."""
        span = Span(cache, 0, len(tokens), rowwise=False)
        return self._forward([span], tokens, [len(tokens) - 1])[0]

    def replay(self, cache: KvCache, tokens: Sequence[int]) -> Tensor:
        """Computes tokens generated earlier, to the bit as `decode` would; scores after the last."""
        with self._tiling:
            span = Span(cache, 0, len(tokens), rowwise=True)
            return self._forward([span], tokens, [len(tokens) - 1])[0]

    def decode(self, caches: Sequence[KvCache], tokens: Sequence[int]) -> Tensor:
        """One token of each sequence; scores `(sequences, vocabulary)` float32."""
        with self._tiling:
            spans = [Span(cache, row, 1, rowwise=True) for row, cache in enumerate(caches)]
            return self._forward(spans, tokens, list(range(len(tokens))))

    def _check(self) -> None:
        """Computes one token: a model this cannot run right is refused before it has jobs."""
        cache = KvCache(1)
        with torch.inference_mode():
            self.prompt_block(cache, [0])
        layers = self._model.config.get_text_config().num_hidden_layers
        if cache.layers != layers:
            # State outside of attention (Mamba and its like) would run from one sequence into the next.
            raise NotImplementedError(f"only {cache.layers} of {layers} layers keep keys and values")

    def _forward(self, spans: list[Span], tokens: Sequence[int], keep: list[int]) -> Tensor:
        positions = [span.cache.length + i for span in spans for i in range(span.count)]
        output = self._model(
            input_ids=self._row(tokens),
            position_ids=self._row(positions),
            use_cache=False,
            logits_to_keep=torch.tensor(keep, device=self._device),
            wattline_spans=spans,
        )
        for span in spans:
            span.cache.length += span.count
        logits: Tensor = output.logits[0]
        return logits.float()

    def _row(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([numbers], dtype=torch.long, device=self._device)


class Tiling:
    """Switch for matrix products in tiles of a fixed number of rows; used as a context."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._on = False

    def __enter__(self) -> None:
        self._on = True

    def __exit__(self, *_: object) -> None:
        self._on = False

    def linear(self, module: nn.Linear, value: Tensor) -> Tensor:
        """`module(value)`; tiled, the last tile is filled up with zero rows."""
        if not self._on or not self._rows:
            return F.linear(value, module.weight, module.bias)
        flat = value.reshape(-1, value.shape[-1])
        count = flat.shape[0]
        if missing := -count % self._rows:
            flat = F.pad(flat, (0, 0, 0, missing))
        tiles = [F.linear(tile, module.weight, module.bias) for tile in _tiles(flat, self._rows)]
        product = tiles[0] if len(tiles) == 1 else torch.cat(tiles)
        return product[:count].reshape(*value.shape[:-1], -1)


def _tiles(flat: Tensor, rows: int) -> list[Tensor]:
    return [flat[start : start + rows] for start in range(0, flat.shape[0], rows)]


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    wattline_spans: list[Span],
    scaling: float | None = None,
    sliding_window: int | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; `(1, heads, tokens, dim)` in, `(1, tokens, heads, dim)` out."""
    if attention_mask is not None or extras.get("softcap") or extras.get("s_aux") is not None:
        raise NotImplementedError("attention with masks of its own, soft caps or sinks is not supported")
    rows = []
    for span in wattline_spans:
        part = slice(span.start, span.start + span.count)
        keys, values = span.cache.append(module.layer_idx, key[0, :, part], value[0, :, part])
        new = query[0, :, part]
        if span.rowwise:
            past = span.cache.length
            for i in range(span.count):
                until = past + i + 1
                since = max(0, until - sliding_window) if sliding_window else 0
                one = new[:, i : i + 1]
                rows.append(_grouped(one, keys[:, since:until], values[:, since:until], None, scaling))
        else:
            mask = _causal(span.count, keys.shape[1], sliding_window, new.device)
            rows.append(_grouped(new, keys, values, mask, scaling))
    return torch.cat(rows).unsqueeze(0), None


def _grouped(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """Attention of one sequence, `(tokens, heads, dim)` out; query heads sharing a key head are stacked."""
    heads, tokens, dim = query.shape
    shared = keys.shape[0]
    stacked = query.reshape(1, shared, heads // shared * tokens, dim)
    if mask is not None:
        mask = mask.repeat(heads // shared, 1)
    out = F.scaled_dot_product_attention(stacked, keys[None], values[None], attn_mask=mask, scale=scale)
    return out.reshape(heads, tokens, -1).transpose(0, 1)


def _causal(new: int, total: int, window: int | None, device: torch.device) -> Tensor:
    """Which of `total` positions each of the last `new` may look at."""
    own = torch.arange(total - new, total, device=device)[:, None]
    other = torch.arange(total, device=device)[None, :]
    seen = other <= own
    return seen & (other > own - window) if window else seen

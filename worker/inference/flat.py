"""Many texts through an encoder in one flat row of tokens, none of them filling.

Attention alone takes the texts apart: those of like length side by side, filled up to whole blocks, the
filling masked. Every other layer computes rows that do not know of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

from worker.inference.kv import additive
from worker.inference.tiles import pack

NAME: Final = "wattline_flat"
# Attention over lengths between these takes up to twice as long as over the next.
_BLOCK: Final = 32
# What we do not compute: a model that asks for it is read the usual way.
_UNKNOWN: Final = ("sliding_window", "softcap", "s_aux", "position_bias")
# Distance of unit vectors: more than rounding, far less than a text that saw its neighbours.
_ROUNDING: Final = 1e-3
_COARSE_ROUNDING: Final = 0.05
_TRIAL_LENGTHS: Final = (3, 20, 11, 64)
_STRIDE: Final = 7919
_UNFIT: Final = (IndexError, RuntimeError, TypeError, ValueError)


class FlatEncoder:
    """An encoder of transformers, its weights packed, that reads texts as one row."""

    def __init__(self, model: Any, first_position: int) -> None:
        self._model = model
        self._device = model.device
        self.first_position = first_position

    def states(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Last hidden states of each text, `(tokens, width)`."""
        lengths = [len(row) for row in rows]
        texts = _Texts(lengths, self._device, self._model.dtype)
        places = [self.first_position + i for length in lengths for i in range(length)]
        output = self._model(
            input_ids=torch.tensor([[token for row in rows for token in row]], device=self._device),
            position_ids=torch.tensor([places], device=self._device),
            wattline_flat=texts,
        )
        if not texts.attended:
            raise ValueError("this model has attention of its own")
        hidden: Tensor = output.last_hidden_state[0]
        return list(hidden.split(lengths))


def flattened(model: Any, *, most_tokens: int, padding: int | None) -> FlatEncoder | None:
    """A model made to read flat rows, if it computes the same then.

    What decides is a comparison with texts read one by one as the model came, not its name.

    Args:
        model: With the attention it came with; changed for good.
        most_tokens: Of a text.
        padding: Token of padding; some families count positions from behind it.
    """
    tokens = [i * _STRIDE % model.config.vocab_size for i in range(1, sum(_TRIAL_LENGTHS) + 1)]
    tokens = [token for token in tokens if token != padding]
    ends = accumulate(min(length, most_tokens) for length in _TRIAL_LENGTHS)
    rows, begin = [], 0
    for end in ends:
        rows.append(tokens[begin:end])
        begin = end
    limit = _ROUNDING if model.dtype == torch.float32 else _COARSE_ROUNDING
    with torch.inference_mode():
        alone = [model(input_ids=torch.tensor([row], device=model.device)) for row in rows]
        wanted = pooled([one.last_hidden_state[0] for one in alone])
        AttentionInterface.register(NAME, _attend)
        model.set_attn_implementation(NAME)
        pack(model)
        found = []
        for first in {0, 0 if padding is None else padding + 1}:
            encoder = FlatEncoder(model, first)
            try:
                apart = (pooled(encoder.states(rows)) - wanted).norm(dim=1).max()
            except _UNFIT:
                continue
            found.append((float(apart), encoder))
    best, encoder = min(found, default=(1.0, None), key=lambda pair: pair[0])
    return encoder if best <= limit else None


def pooled(states: Sequence[Tensor]) -> Tensor:
    """Unit vectors `(texts, width)` of the mean of each text's states."""
    # In float32 whatever the weights are: sums of bfloat16 lose what normalising needs.
    return functional.normalize(torch.stack([one.float().mean(dim=0) for one in states]), dim=1)


@dataclass(frozen=True, slots=True)
class _Group:
    """Texts of one filled length: their `places` in the flat row, `(texts · length,)`, of filling any.

    `mask` is added to scores of keys, `(texts, 1, 1, length)`; None: there is no filling.
    """

    places: Tensor
    texts: int
    mask: Tensor | None


class _Texts:
    """Which tokens of a flat row belong together."""

    def __init__(self, lengths: Sequence[int], device: torch.device, dtype: torch.dtype) -> None:
        self.attended = False
        self._groups: list[_Group] = []
        starts = [0, *accumulate(lengths)]
        back = [torch.empty(0)] * len(lengths)
        begin = 0
        order = sorted(range(len(lengths)), key=lambda text: lengths[text])
        for filled, members in groupby(order, key=lambda text: -(-lengths[text] // _BLOCK) * _BLOCK):
            texts = list(members)
            inside = torch.arange(filled)
            own = torch.tensor([lengths[text] for text in texts])[:, None]
            first = torch.tensor([starts[text] for text in texts])[:, None]
            # A text's last token stands in for its filling: any number will do, it is masked.
            places = (first + torch.minimum(inside, own - 1)).flatten().to(device)
            seen = (inside < own)[:, None, None, :]
            mask = None if bool(seen.all()) else additive(seen, dtype).to(device)
            self._groups.append(_Group(places, len(texts), mask))
            for text in texts:
                back[text] = torch.arange(begin, begin + lengths[text])
                begin += filled
        self._back = torch.cat(back).to(device)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
        """`(tokens, heads, dim)` in and out; key and value may have fewer heads."""
        self.attended = True
        heads, parts = query.shape[1], []
        flat = [one.flatten(1) for one in (query, key, value)]
        for group in self._groups:
            side_by_side = (
                one.index_select(0, group.places).view(group.texts, -1, own, one.shape[1] // own)
                for one, own in zip(flat, (heads, key.shape[1], key.shape[1]), strict=True)
            )
            out = functional.scaled_dot_product_attention(
                *(one.transpose(1, 2) for one in side_by_side),
                attn_mask=group.mask,
                scale=scale,
                enable_gqa=heads != key.shape[1],
            )
            parts.append(out.transpose(1, 2).reshape(len(group.places), -1))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.index_select(0, self._back).unflatten(1, (heads, -1))


def _attend(
    _module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    wattline_flat: _Texts,
    scaling: float | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; `(1, heads, tokens, dim)` in, `(1, tokens, heads, dim)` out."""
    if attention_mask is not None or any(extras.get(name) is not None for name in _UNKNOWN):
        raise ValueError("attention with masks, windows or biases of its own")
    query, key, value = (one[0].transpose(0, 1) for one in (query, key, value))
    return wattline_flat.attend(query, key, value, scaling)[None], None

"""Many texts through an encoder in one flat row of tokens, none of them filling.

Attention alone takes the texts apart: those of like length side by side, filled up to whole blocks, the
filling masked. All else computes rows that do not know of each other, with as few calls as it takes: a text
is so little work that a module's bookkeeping shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby, pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import GELUActivation

from worker.inference.kv import additive
from worker.inference.tiles import Product, can_pack, packed

# Attention over lengths between these takes up to twice as long as over the next.
_BLOCK: Final = 32
# Distance of unit vectors: more than rounding, far less than a text that saw its neighbours.
_ROUNDING: Final = 1e-3
_COARSE_ROUNDING: Final = 0.05
_TRIAL_LENGTHS: Final = (3, 20, 11, 64)
_STRIDE: Final = 7919
# What code of another shape than BERT's, or with another use of its parts, raises.
_UNFIT: Final = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)


class FlatEncoder:
    """An encoder with the layers of BERT that reads texts as one row."""

    def __init__(self, model: Any, first_position: int) -> None:
        self._embed = model.embeddings
        self._layers = [_Layer(layer) for layer in model.encoder.layer]
        self._device = model.device
        self._dtype = model.dtype
        self.first_position = first_position

    def states(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Last hidden states of each text, `(tokens, width)`."""
        lengths = [len(row) for row in rows]
        # Products of ever new sizes would each be compiled anew.
        filling = [0] * (-sum(lengths) % _BLOCK)
        tokens = [token for row in rows for token in row]
        places = [self.first_position + i for length in lengths for i in range(length)]
        texts = _Texts(lengths, len(filling), self._device, self._dtype)
        value: Tensor = self._embed(
            input_ids=torch.tensor([tokens + filling], device=self._device),
            position_ids=torch.tensor([places + filling], device=self._device),
        )[0]
        for layer in self._layers:
            value = layer.forward(value, texts)
        return list(torch.split(value[: len(tokens)], lengths))


def flattened(model: Any, *, most_tokens: int, padding: int | None) -> FlatEncoder | None:
    """A model as one that reads flat rows, if its layers are known and it computes the same.

    What decides is a comparison with texts read one by one as the model came, not its name.

    Args:
        model: As transformers opens it.
        most_tokens: Of a text.
        padding: Token of padding; some families count positions from behind it.
    """
    limit = _ROUNDING if model.dtype == torch.float32 else _COARSE_ROUNDING
    best = None
    with torch.inference_mode():
        rows = _trial(model.config.vocab_size, most_tokens, padding)
        alone = [model(input_ids=torch.tensor([row], device=model.device)) for row in rows]
        wanted = pooled([one.last_hidden_state[0] for one in alone])
        for first in {0, 0 if padding is None else padding + 1}:
            try:
                encoder = FlatEncoder(model, first)
                apart = float((pooled(encoder.states(rows)) - wanted).norm(dim=1).max())
            except _UNFIT:
                continue
            if apart <= limit:
                best, limit = encoder, apart
    return best


def pooled(states: Sequence[Tensor]) -> Tensor:
    """Unit vectors `(texts, width)` of the mean of each text's states."""
    # In float32 whatever the weights are: sums of bfloat16 lose what normalising needs.
    return functional.normalize(torch.stack([one.float().mean(dim=0) for one in states]), dim=1)


def _trial(vocabulary: int, most_tokens: int, padding: int | None) -> list[list[int]]:
    """Texts of some lengths with words from all over the vocabulary."""
    words = [i * _STRIDE % vocabulary for i in range(1, sum(_TRIAL_LENGTHS) + 1)]
    words = [word for word in words if word != padding]
    ends = [0, *accumulate(min(length, most_tokens) for length in _TRIAL_LENGTHS)]
    return [words[begin:end] for begin, end in pairwise(ends)]


class _Layer:
    """One layer of BERT and its kin: attention, then two products, each beside what came in."""

    def __init__(self, layer: Any) -> None:
        own, attended = layer.attention.self, layer.attention.output
        parts = (own.query, own.key, own.value)
        self._heads = own.num_attention_heads
        self._ask = _product(torch.cat([one.weight for one in parts]), torch.cat([one.bias for one in parts]))
        self._attended = _product(attended.dense.weight, attended.dense.bias)
        self._first_norm = _norm(attended.LayerNorm)
        act = layer.intermediate.intermediate_act_fn
        self._widen = _product(layer.intermediate.dense.weight, layer.intermediate.dense.bias, act)
        self._narrow = _product(layer.output.dense.weight, layer.output.dense.bias)
        self._last_norm = _norm(layer.output.LayerNorm)

    def forward(self, value: Tensor, texts: _Texts) -> Tensor:
        """`(tokens, width)` in and out."""
        seen = self._attended(texts.attend(self._ask(value), self._heads))
        value = self._first_norm(seen.add_(value))
        return self._last_norm(self._narrow(self._widen(value)).add_(value))


def _product(weight: Tensor, bias: Tensor, then: Any = None) -> Product:
    """Product with a weight, and what is done with what comes out."""
    exact = isinstance(then, (nn.GELU, GELUActivation)) and getattr(then, "approximate", "none") == "none"
    if can_pack(weight) and (then is None or exact):
        return packed(weight, bias, "gelu" if exact else "none")
    plain: Product = partial(functional.linear, weight=weight, bias=bias)
    if can_pack(weight):
        plain = packed(weight, bias)
    return plain if then is None else lambda value: then(plain(value))


def _norm(norm: Any) -> Product:
    return partial(
        functional.layer_norm,
        normalized_shape=norm.normalized_shape,
        weight=norm.weight,
        bias=norm.bias,
        eps=norm.eps,
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """Texts of one filled length: their `places` in the flat row, `(texts · length,)`, of filling any.

    `mask` is added to scores of keys, `(texts, 1, 1, length)`; None: there is no filling.
    """

    places: Tensor
    texts: int
    mask: Tensor | None


class _Texts:
    """Which tokens of a flat row belong together; `filling` at its end to nobody."""

    def __init__(
        self, lengths: Sequence[int], filling: int, device: torch.device, dtype: torch.dtype
    ) -> None:
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
        self._back = torch.cat([*back, torch.zeros(filling, dtype=torch.long)]).to(device)

    def attend(self, asked: Tensor, heads: int) -> Tensor:
        """Queries, keys and values side by side, `(tokens, 3 · width)`; `(tokens, width)`."""
        parts = []
        for group in self._groups:
            near = asked.index_select(0, group.places).view(
                group.texts, -1, 3, heads, asked.shape[1] // heads // 3
            )
            query, key, value = near.transpose(1, 3).unbind(2)
            out = functional.scaled_dot_product_attention(query, key, value, attn_mask=group.mask)
            parts.append(out.transpose(1, 2).reshape(len(group.places), -1))
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.index_select(0, self._back)

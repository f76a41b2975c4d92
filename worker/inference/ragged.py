"""Runs Hugging Face model code on sequences of different lengths without padding them.

The model sees one flat row of tokens; an attention function registered with transformers sends each
sequence's part to its own keys and values. Two kinds of pass:

- a *prompt block* runs alone, so its shapes depend on the prompt only (in tiles as below in float32);
- *generated tokens* of many sequences run together, every matrix product in tiles of a fixed number of
  rows and attention padded by length alone, so that a row's bits do not depend on its neighbours. Replaying
  tokens of an earlier run takes the same path, which is why a resumed answer goes on as it would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from worker.inference import attention
from worker.inference.attention import Batch, Call, Prompt, Singles
from worker.inference.errors import ModelRefused
from worker.inference.fit import best_threads
from worker.inference.kv import KvCache, KvPool, Slab, least, padded
from worker.inference.prefixes import Stored
from worker.inference.tiles import Tiling

__all__ = ["KvCache", "RaggedModel"]

# Products of so many rows are worth computing at once: all slots, or a block of a replay.
_MOST_ROWS: Final = 256
# Distance to transformers' own attention, as a share: far more than rounding, far less than any mistake.
_ROUNDING: Final = 1e-3
_COARSE_ROUNDING: Final = 0.1
# A step of so many sequences tells which number of threads is fast; one for each thread count and round.
_TRIAL_ROWS: Final = 16
_TRIAL_TOKENS: Final = 64
_STRIDE: Final = 7919
_LAYERS: Final = frozenset({"full_attention", "sliding_attention"})


class RaggedModel:
    """A causal language model with its own cache per sequence. One thread at a time."""

    def __init__(self, path: Path, *, device: str, tile_rows: int) -> None:
        disable_progress_bar()
        AttentionInterface.register(attention.NAME, _attend)
        self._device = device
        self._model: Any = _open(path).to(device).eval()
        self._tiling = Tiling(tile_rows, most_rows=_MOST_ROWS)
        # Without tiles a prompt's bits may depend on the number of threads. In 32 bits they cost nothing; in
        # bfloat16 a prompt took half as long again, so there the number is part of the profile alone.
        self._prompts_in_tiles = self._model.dtype == torch.float32
        self._pool = KvPool()
        # Rows that went into the head in the last pass, `(tokens, width)`: what traces commit to.
        self.hidden = torch.empty(0)
        self._output: Any = None
        self._model.base_model.register_forward_hook(self._keep_hidden)
        self._check()
        with torch.inference_mode():
            self._tiling.attach(self._model)
            if tile_rows:
                self._check_exact()

    @property
    def dtype(self) -> str:
        """Element type of weights and activations."""
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._model.config.get_text_config().vocab_size)

    @property
    def bytes_per_token(self) -> int:
        """Memory that keys and values of one token take, all layers together; measured."""
        return self._bytes_per_token

    def choose_threads(self, cores: int) -> int:
        """Sets the threads that are fast on this machine; 1 when more would change a bit."""
        caches = [KvCache(_TRIAL_TOKENS) for _ in range(_TRIAL_ROWS)]
        threads = best_threads(lambda: self.decode(caches, [0] * len(caches)), cores=cores)
        if not self._tiling.prove(threads):
            threads = 1
            torch.set_num_threads(threads)
            self._tiling.prove(threads)
        return threads

    def prompt_block(self, cache: KvCache, tokens: Sequence[int]) -> Tensor:
        """Computes the next prompt tokens; scores after the last, `(vocabulary,)` float32."""
        slab = self._pool.alone(cache, cache.length + len(tokens))
        batch = Batch(prompts=[Prompt(cache, slab, 0, len(tokens))], tokens=len(tokens))
        positions = range(cache.length, cache.length + len(tokens))
        with self._tiling if self._prompts_in_tiles else nullcontext():
            logits = self._forward(batch, tokens, positions, [len(tokens) - 1])
        cache.length += len(tokens)
        return logits[0]

    def copy_of(self, cache: KvCache, since: int) -> Stored:
        """Keys and values from token `since` on, of every layer."""
        pairs = (cache.stored(layer) for layer in range(cache.layers))
        return [(keys[since:].clone(), values[since:].clone()) for keys, values in pairs]

    def restore(self, cache: KvCache, stored: Stored) -> None:
        """Puts in place what would be computed for the next tokens."""
        count = len(stored[0][0])
        end = cache.length + count
        slab = self._pool.alone(cache, end)
        for layer, (keys, values) in enumerate(stored):
            there = slab.layer(layer, keys, values)
            there[0][cache.row, cache.length : end] = keys
            there[1][cache.row, cache.length : end] = values
        cache.length = end

    def replay(self, cache: KvCache, tokens: Sequence[int]) -> Tensor:
        """Computes tokens generated earlier, to the bit as `decode` would; scores after the last."""
        return self._replay(cache, tokens, [len(tokens) - 1])[0]

    def replay_scored(self, cache: KvCache, tokens: Sequence[int]) -> Tensor:
        """As `replay`; scores after each token, `(tokens, vocabulary)`."""
        return self._replay(cache, tokens, range(len(tokens)))

    def states(self, caches: Sequence[KvCache], sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Computes the next tokens of sequences together, as fast as it goes; `(tokens, width)` of each."""
        batch, positions = Batch(), list[int]()
        for cache, tokens in zip(caches, sequences, strict=True):
            slab = self._pool.alone(cache, cache.length + len(tokens))
            batch.prompts.append(Prompt(cache, slab, len(positions), len(tokens)))
            positions += range(cache.length, cache.length + len(tokens))
        batch.tokens = len(positions)
        self._model.base_model(
            input_ids=self._numbers([token for tokens in sequences for token in tokens])[None],
            position_ids=self._numbers(positions)[None],
            use_cache=False,
            wattline_batch=batch,
        )
        for cache, tokens in zip(caches, sequences, strict=True):
            cache.length += len(tokens)
        return list(torch.split(self.hidden, [len(tokens) for tokens in sequences]))

    def scores(self, states: Tensor) -> Tensor:
        """What the model's head makes of states, `(tokens, vocabulary)` float32."""
        name, whole = self._model.base_model_prefix, self._model.base_model
        # Caps and scales of scores are in the model's own code, behind its base.
        setattr(self._model, name, _Gave(self._output, states))
        try:
            logits: Tensor = self._model(use_cache=False).logits[0]
        finally:
            setattr(self._model, name, whole)
        return logits.float().cpu()

    def decode(self, caches: Sequence[KvCache], tokens: Sequence[int]) -> Tensor:
        """One token of each sequence; scores `(sequences, vocabulary)` float32."""
        self._pool.sweep()
        slabs = [self._pool.together(cache, cache.length + 1) for cache in caches]
        # Slab by slab and row by row: then nothing has to be gathered.
        order = sorted(range(len(caches)), key=lambda i: (slabs[i].positions, caches[i].row))
        batch = Batch(tokens=len(caches))
        for slab, group in groupby(order, key=slabs.__getitem__):
            batch.singles.append(self._singles(slab, [caches[i] for i in group], batch))
        place = {i: row for row, i in enumerate(order)}
        rows = [place[i] for i in range(len(caches))]
        with self._tiling:
            logits = self._forward(
                batch,
                [tokens[i] for i in order],
                [caches[i].length for i in order],
                rows,
            )
        self.hidden = self.hidden[self._numbers(rows)]
        for cache in caches:
            cache.length += 1
        return logits

    def _singles(self, slab: Slab, caches: list[KvCache], batch: Batch) -> Singles:
        lengths = [cache.length + 1 for cache in caches]
        return Singles(
            slab,
            sum(len(one.lengths) for one in batch.singles),
            rows=self._numbers([cache.row for cache in caches]),
            lengths=self._numbers(lengths),
            positions=slab.positions,
            least=least(slab.positions),
            whole=len(caches) == len(slab),
        )

    def _replay(self, cache: KvCache, tokens: Sequence[int], keep: Sequence[int]) -> Tensor:
        lengths = range(cache.length + 1, cache.length + len(tokens) + 1)
        slab = self._pool.alone(cache, padded(lengths[-1]))
        batch = Batch(tokens=len(tokens))
        for positions, group in groupby(lengths, key=padded):
            count = len(list(group))
            start = sum(len(one.lengths) for one in batch.singles)
            own = self._numbers(lengths[start : start + count])
            batch.singles.append(
                Singles(
                    slab,
                    start,
                    rows=torch.full_like(own, cache.row),
                    row=cache.row,
                    lengths=own,
                    positions=positions,
                    least=lengths[start],
                    whole=False,
                )
            )
        with self._tiling:
            logits = self._forward(batch, tokens, [length - 1 for length in lengths], keep)
        cache.length += len(tokens)
        return logits

    def _keep_hidden(self, _module: object, _inputs: Any, output: Any) -> None:
        self.hidden = output.last_hidden_state[0]
        self._output = output

    def _check(self) -> None:
        """Compares with transformers' own attention: a model this cannot run right is refused unheard."""
        config = self._model.config.get_text_config()
        if strange := sorted(set(getattr(config, "layer_types", None) or ()) - _LAYERS):
            raise ModelRefused(f"layers of kind {', '.join(strange)}")
        # From all over the vocabulary: behind a run of special tokens bfloat16 scores are noise.
        tokens = [i * _STRIDE % config.vocab_size for i in range(1, 9)]
        cache = KvCache(len(tokens))
        with torch.inference_mode():
            mine = self.prompt_block(cache, tokens[:-1])
            mine = torch.stack([mine, self.decode([cache], tokens[-1:])[0]])
            if cache.layers != config.num_hidden_layers:
                # State outside of attention (Mamba and its like) would run from one sequence into the next.
                raise ModelRefused(
                    f"only {cache.layers} of {config.num_hidden_layers} layers keep keys and values"
                )
            theirs = _reference(self._model, tokens, self._device)
        stored = [one for layer in range(cache.layers) for one in cache.stored(layer)]
        self._bytes_per_token = sum(one[0].numel() * one.element_size() for one in stored)
        if not _alike(mine, theirs, self.dtype):
            raise ModelRefused("another result than with transformers' own attention")

    def _check_exact(self) -> None:
        """Computes a token alone and in a crowd: a model whose bits depend on the batch is refused."""
        crowd = [KvCache(1) for _ in range(2 * self._tiling.rows + 1)]
        words = [(i + 1) * _STRIDE % self.vocabulary for i in range(len(crowd))]
        alone = self.decode([KvCache(1)], words[:1])[0]
        if not torch.equal(alone, self.decode(crowd, words)[0]):
            raise ModelRefused("products that depend on the batch")

    def _forward(
        self, batch: Batch, tokens: Sequence[int], positions: Sequence[int], keep: Sequence[int]
    ) -> Tensor:
        # Whole tiles from the start: filled up once and not for every product.
        filling = [0] * (-len(tokens) % self._tiling.rows) if self._tiling.on else []
        batch.tokens = len(tokens) + len(filling)
        output = self._model(
            input_ids=self._numbers([*tokens, *filling])[None],
            position_ids=self._numbers([*positions, *filling])[None],
            use_cache=False,
            logits_to_keep=self._numbers(keep),
            wattline_batch=batch,
        )
        # Filling belongs to nobody.
        self.hidden = self.hidden[: len(tokens)]
        logits: Tensor = output.logits[0]
        # On the host at once, where tokens are chosen: not row by row.
        return logits.float().cpu()

    def _numbers(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)


class _Gave(nn.Module):
    """Stands where the base of a model is and gives again what that gave, with other states."""

    def __init__(self, output: Any, states: Tensor) -> None:
        super().__init__()
        self._output = output
        self._output.last_hidden_state = states[None]

    def forward(self, *_: Any, **_asked: Any) -> Any:
        """As the base gives it."""
        return self._output


def _open(path: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        path,
        dtype="auto",
        attn_implementation=attention.NAME,
        # Experts one by one: the faster ways mix rows of different sequences in one product.
        experts_implementation="eager",
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )


def _reference(model: Any, tokens: Sequence[int], device: str) -> Tensor:
    """Scores after the last two tokens, with the attention that the model came with."""
    model.set_attn_implementation("eager")
    try:
        output = model(input_ids=torch.tensor([tokens], device=device), use_cache=False)
    finally:
        model.set_attn_implementation(attention.NAME)
    logits: Tensor = output.logits[0, -2:]
    return logits.float()


def _alike(mine: Tensor, theirs: Tensor, dtype: str) -> bool:
    apart = (mine - theirs).norm() / theirs.norm()
    return bool(apart <= (_ROUNDING if dtype == "float32" else _COARSE_ROUNDING))


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    wattline_batch: Batch,
    scaling: float | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers calls it; `(1, heads, tokens, dim)` in, `(1, tokens, heads, dim)` out."""
    if attention_mask is not None or extras.get("position_bias") is not None:
        raise ModelRefused("attention with masks or biases of its own")
    layer: int = module.layer_idx
    call = Call(
        layer=layer,
        query=query[0].transpose(0, 1),
        key=key[0].transpose(0, 1),
        value=value[0].transpose(0, 1),
        scale=scaling,
        window=extras.get("sliding_window"),
        cap=extras.get("softcap"),
        sinks=extras.get("s_aux"),
    )
    return wattline_batch.attend(call)[None], None

"""Log-probabilities of continuations under a causal language model.

A row is a beginning and the continuations to compare; the beginning is read once for all of them (tree
attention: a continuation sees the beginning and itself). Rows fill up to a multiple of 32 tokens, only rows
of one length share a batch, and linear layers run in fixed tiles, so a score does not depend on the others.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from worker.inference.engine import EngineSettings
from worker.inference.errors import ModelRefused, OutOfContext
from worker.inference.prompt import model_context, open_tokenizer
from worker.inference.tiles import Tiling

_PAD_TO: Final = 32
# Reading has many rows at once: larger tiles than a decoder's took half the time, and no more for one row.
_TILE_ROWS: Final = 64
# Products of so many rows are worth computing at once.
_MOST_ROWS: Final = 256
# A mask is this large squared.
_MOST_TOKENS: Final = 8192
# A model that the tree misleads is off by much more than rounding.
_TOLERANCE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens of a beginning and of each continuation."""

    prefix: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Tokens the model reads."""
        return len(self.prefix) + self.compared

    @property
    def compared(self) -> int:
        """Tokens of all continuations."""
        return sum(map(len, self.continuations))

    @property
    def padded(self) -> int:
        """Positions it takes in a batch."""
        return -(-self.tokens // _PAD_TO) * _PAD_TO


class Scorer:
    """Tokenizer and model that score continuations."""

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        self._path = path
        self._device = settings.device
        tile_rows = _TILE_ROWS if settings.tile_rows else 0
        self._tiling = Tiling(tile_rows, most_rows=_MOST_ROWS)
        self._lock = threading.Lock()
        self._tokenizer = open_tokenizer(path)
        self._most_tokens = min(model_context(path), _MOST_TOKENS)
        self._model: Any = None
        self.shapes = f"tile{tile_rows}/pad{_PAD_TO}"
        self.dtype = ""

    def row(self, beginning: str, continuations: Sequence[str]) -> Row:
        """Tokens of texts; safe from many threads. Raises `BadRequest` when they are too long together."""
        # One at a time: encoding reads and sets state inside the tokenizer.
        with self._lock:
            prefix = tuple(self._tokenizer.encode(beginning))
            rest = tuple(tuple(self._tokenizer.encode(t, add_special_tokens=False)) for t in continuations)
        row = Row(prefix, rest)
        if row.tokens > self._most_tokens:
            raise OutOfContext(row.tokens, self._most_tokens + 1)
        return row

    def load(self) -> None:
        """Reads the weights, and compares one tree with its branches read one by one."""
        disable_progress_bar()
        model: Any = AutoModelForCausalLM.from_pretrained(
            self._path,
            dtype="auto",
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        self._model = model.to(self._device).eval()
        self.dtype = str(self._model.dtype).removeprefix("torch.")
        with torch.inference_mode():
            self._tiling.attach(self._model)
        self._check()

    def logprobs(self, rows: Sequence[Row]) -> list[list[float]]:
        """Summed log-probability of each continuation of rows of one padded length."""
        width, keep = rows[0].padded, max(row.compared for row in rows) + 1
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        positions = torch.zeros_like(tokens)
        # Whatever fills up sees itself alone: a position that sees nothing would become NaN.
        seen = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
        for place, row in enumerate(rows):
            _lay_out(row, tokens[place], positions[place], seen[place])
        with self._tiling:
            logits = self._model(
                input_ids=tokens.to(self._device),
                attention_mask=seen[:, None].to(self._device),
                position_ids=positions.to(self._device),
                use_cache=False,
                logits_to_keep=keep,
            ).logits
        return [
            _sums(row, scores[keep - row.compared - 1 :]) for row, scores in zip(rows, logits, strict=True)
        ]

    def _check(self) -> None:
        """Refuses a model whose state or masks the tree would mix up, before it has jobs."""
        most = self._model.config.get_text_config().vocab_size
        ids = [(7 * i + 3) % most for i in range(20)]
        row = Row(tuple(ids[:8]), (tuple(ids[8:14]), tuple(ids[14:20])))
        with torch.inference_mode():
            together = self.logprobs([row])[0]
            for branch, value in zip(row.continuations, together, strict=True):
                alone = torch.tensor([[*row.prefix, *branch]], device=self._device)
                scores = self._model(input_ids=alone, use_cache=False).logits[0, len(row.prefix) - 1 :]
                apart = _sums(Row(row.prefix, (branch,)), scores)[0]
                if abs(value - apart) > _TOLERANCE * len(branch):
                    raise ModelRefused("scores that differ when continuations stand side by side")


def _lay_out(row: Row, tokens: Tensor, positions: Tensor, seen: Tensor) -> None:
    """Writes a row at the right end of its `(width,)` and `(width, width)` views."""
    start, length = len(tokens) - row.tokens, len(row.prefix)
    ends = [start + length, *accumulate(map(len, row.continuations), initial=start + length)]
    for begin, part in zip([start, *ends[1:]], [row.prefix, *row.continuations], strict=False):
        here = slice(begin, begin + len(part))
        tokens[here] = torch.tensor(part)
        first = 0 if begin == start else length
        positions[here] = torch.arange(first, first + len(part))
        seen[here, start : start + length] = True
        seen[here, here] = torch.ones(len(part), len(part), dtype=torch.bool).tril()


def _sums(row: Row, logits: Tensor) -> list[float]:
    """Sums per continuation; `logits` `(1 + compared, vocabulary)` begin at the last token of the prefix."""
    scores = logits.float()
    scores = scores - scores.logsumexp(dim=-1, keepdim=True)
    sums, before = [], 1
    for branch in row.continuations:
        # The first token of a branch is foretold by the prefix, the others by their own branch.
        at = [0, *range(before, before + len(branch) - 1)]
        sums.append(float(scores[at, list(branch)].sum()))
        before += len(branch)
    return sums

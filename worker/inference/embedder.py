"""Tokenizer and encoder of a mean-pooling sentence model."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from worker.inference.flat import FlatEncoder, flattened, pooled
from worker.inference.prompt import open_tokenizer


class EmbeddingModel:
    """Tokenizer and encoder of a mean-pooling sentence model."""

    def __init__(self, path: Path, *, device: str) -> None:
        self._path = path
        self._device = device
        self._lock = threading.Lock()
        self._tokenizer = open_tokenizer(path)
        self._most_tokens = _limit(path, self._tokenizer)
        self._model: Any = None
        self._flat: FlatEncoder | None = None
        self.dtype = ""

    @property
    def padded(self) -> bool:
        """Whether texts of a batch are filled up to the longest."""
        return self._flat is None

    def load(self, dtype: torch.dtype | None = None) -> None:
        """Reads the weights; as they are stored, or converted to `dtype`."""
        disable_progress_bar()
        model: Any = AutoModel.from_pretrained(
            self._path,
            dtype=dtype or "auto",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        model = model.to(self._device).eval()
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._flat = flattened(model, most_tokens=self._most_tokens, padding=self._tokenizer.pad_token_id)
        if self._flat is None:
            self._model = model

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, cut at the model's limit. Safe from many threads."""
        # One at a time: encoding sets and reads truncation state inside the tokenizer.
        with self._lock:
            encoded = self._tokenizer(
                list(texts), truncation=True, max_length=self._most_tokens, padding=False
            )
        return [list(tokens) for tokens in encoded["input_ids"]]

    def vectors(self, rows: Sequence[Sequence[int]]) -> list[bytes]:
        """Unit vectors of token rows, little-endian float32."""
        states = self._flat.states(rows) if self._flat else self._states(rows)
        return [row.tobytes() for row in pooled(states).cpu().numpy().astype("<f4", copy=False)]

    def _states(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """Last hidden states of each text, computed as a padded batch."""
        longest = max(len(row) for row in rows)
        pad = self._tokenizer.pad_token_id or 0
        tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        mask = torch.arange(longest, device=self._device)[None, :] < lengths[:, None]
        hidden = self._model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        return [one[: len(row)] for one, row in zip(hidden, rows, strict=True)]


def _limit(path: Path, tokenizer: Any) -> int:
    """Most tokens of a text: what the model was trained on, else what it can hold."""
    stated = path / "sentence_bert_config.json"
    if stated.is_file():
        return int(json.loads(stated.read_bytes())["max_seq_length"])
    positions = json.loads((path / "config.json").read_bytes())["max_position_embeddings"]
    return int(min(positions, tokenizer.model_max_length))

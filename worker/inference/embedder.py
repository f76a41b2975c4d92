"""Tokenizer and encoder of a mean-pooling sentence model."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # everybody's name for it
from torch import Tensor
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

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
        self.dtype = ""

    def load(self, dtype: torch.dtype | None = None) -> None:
        """Reads the weights; as they are stored, or converted to `dtype`."""
        disable_progress_bar()
        self._model = AutoModel.from_pretrained(
            self._path,
            dtype=dtype or "auto",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        self._model = self._model.to(self._device).eval()
        self.dtype = str(self._model.dtype).removeprefix("torch.")

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
        longest = max(len(row) for row in rows)
        pad = self._tokenizer.pad_token_id or 0
        tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self._device)
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        mask = torch.arange(longest, device=self._device)[None, :] < lengths[:, None]
        hidden: Tensor = self._model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        # Pooled in float32 whatever the weights are: sums of bfloat16 lose what normalising needs.
        summed = (hidden.float() * mask[..., None]).sum(dim=1)
        unit = F.normalize(summed / lengths[:, None], dim=1)
        return [row.tobytes() for row in unit.cpu().numpy().astype("<f4")]


def _limit(path: Path, tokenizer: Any) -> int:
    """Most tokens of a text: what the model was trained on, else what it can hold."""
    stated = path / "sentence_bert_config.json"
    if stated.is_file():
        return int(json.loads(stated.read_bytes())["max_seq_length"])
    positions = json.loads((path / "config.json").read_bytes())["max_position_embeddings"]
    return int(min(positions, tokenizer.model_max_length))

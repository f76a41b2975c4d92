"""Computes answers again with the engine's own code: the `Replayer` that audits ask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from marketplace.protocol.annex import Profile
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import ChatPayload
from worker.inference.engine import EngineSettings
from worker.inference.generate import chat_profile
from worker.inference.prompt import ChatTokenizer
from worker.inference.ragged import KvCache, RaggedModel
from worker.inference.stream import TextBuffer
from worker.models import ModelDir
from worker.proofs.replay import Computed

# Tokens computed at once: scores of a whole vocabulary are kept for each of the answer.
_EXACT_TOKENS: Final = 64
_BATCH_TOKENS: Final = 1024


class ModelReplayer:
    """Computes answers again; a `Replayer`. One thread at a time."""

    def __init__(self, model: ModelDir, settings: EngineSettings) -> None:
        """Reads the weights. Raises `EngineFailed` for a model without a chat template."""
        self.model_id = to_hex(model.model_id)
        self._settings = settings
        self._tokenizer = ChatTokenizer(model.path)
        if settings.max_batch_tokens:
            self._tokenizer.limit(settings.max_batch_tokens)
        if settings.threads:
            use_threads(settings.threads)
        self._model = RaggedModel(model.path, device=settings.device, tile_rows=settings.tile_rows)
        self._path = model.path
        self._wide: Any = None
        self._profile = chat_profile(
            model,
            settings,
            dtype=self._model.dtype,
            threads=torch.get_num_threads(),
            context_tokens=self._tokenizer.context_tokens,
        )

    @property
    def profile(self) -> Profile:
        """Of an engine with these settings on this machine."""
        return self._profile

    @property
    def context_tokens(self) -> int:
        """Longest prompt and answer together."""
        return self._tokenizer.context_tokens

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return self._tokenizer.ends

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self._model.vocabulary

    def prompt(self, payload: ChatPayload) -> list[int]:
        """Tokens up to where the answer begins. Raises `BadRequest`."""
        return self._tokenizer.prompt(payload).tokens

    def text(self, token_ids: Sequence[int], payload: ChatPayload) -> tuple[str, bool]:
        """Text of an answer, and whether its last token completed a stop string."""
        buffer = TextBuffer(self._tokenizer.decode, payload.stop)
        text, stopped = "", False
        for place, token in enumerate(token_ids):
            if token in self._tokenizer.ends:
                break
            text += buffer.push(token)
            stopped = buffer.stopped and place == len(token_ids) - 1
            if buffer.stopped:
                break
        return text + buffer.flush(), stopped

    def exact(self, prompt: Sequence[int], answer: Sequence[int]) -> Computed:
        """Computes as a node does, to the bit."""
        with torch.inference_mode():
            return self._exact(prompt, answer)

    def precise(self, prompt: Sequence[int], answer: Sequence[int]) -> Computed:
        """Computes one answer in float32, by transformers' code; reads the weights at the first call."""
        if self._wide is None:
            self._wide = _opened_wide(self._path, self._settings.device)
        with torch.inference_mode():
            tokens = torch.tensor([[*prompt, *answer[:-1]]], device=self._settings.device)
            given = self._wide(tokens, output_hidden_states=True, use_cache=False)
        first = len(prompt) - 1
        return Computed(given.logits[0, first:].cpu().numpy(), given.hidden_states[-1][0, first:].cpu())

    def batch(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Computed]:
        """Computes prompts and answers together, as fast as it goes."""
        found: list[Computed] = []
        with torch.inference_mode():
            waiting = list(pairs)
            while waiting:
                taken = [waiting.pop(0)]
                while waiting and sum(map(_length, [*taken, waiting[0]])) <= _BATCH_TOKENS:
                    taken.append(waiting.pop(0))
                found += self._batch(taken)
        return found

    def _exact(self, prompt: Sequence[int], answer: Sequence[int]) -> Computed:
        model, size = self._model, self._settings.prompt_block
        cache = KvCache(len(prompt) + len(answer))
        for start in range(0, len(prompt), size):
            last = model.prompt_block(cache, prompt[start : start + size])
        hidden, scores = [model.hidden[-1:].clone()], [last[None]]
        # What follows the last token is nobody's choice.
        for start in range(0, len(answer) - 1, _EXACT_TOKENS):
            block = answer[start : min(start + _EXACT_TOKENS, len(answer) - 1)]
            scores.append(model.replay_scored(cache, block))
            hidden.append(model.hidden)
        count = len(answer)
        return Computed(torch.cat(scores)[:count].cpu().numpy(), torch.cat(hidden)[:count].cpu())

    def _batch(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Computed]:
        # The state at a token decides the next one, so the last of each answer need not be computed.
        sequences = [[*prompt, *answer[:-1]] for prompt, answer in pairs]
        keep: list[int] = []
        start = 0
        for (prompt, answer), tokens in zip(pairs, sequences, strict=True):
            keep += range(start + len(prompt) - 1, start + len(prompt) - 1 + len(answer))
            start += len(tokens)
        if not keep:
            return [Computed(np.empty((0, 0), np.float32), torch.empty((0, 0))) for _ in pairs]
        logits = self._model.score([KvCache(len(tokens)) for tokens in sequences], sequences, keep).cpu()
        hidden = self._model.hidden[keep].cpu()
        sizes = [len(answer) for _, answer in pairs]
        parts = zip(torch.split(logits, sizes), torch.split(hidden, sizes), strict=True)
        return [Computed(scores.numpy(), rows) for scores, rows in parts]


def _opened_wide(path: Path, device: str) -> Any:
    opened = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    return opened.to(device).eval()


def use_threads(threads: int) -> None:
    """Has torch compute with so many threads in this process."""
    torch.set_num_threads(threads)


def _length(pair: tuple[Sequence[int], Sequence[int]]) -> int:
    return len(pair[0]) + len(pair[1])

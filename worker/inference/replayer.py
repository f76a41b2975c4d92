"""Computes answers again with the engine's own code: the `Replayer` that audits ask."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from marketplace.protocol.annex import Profile
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import ChatPayload
from worker.inference.engine import EngineSettings
from worker.inference.generate import chat_profile
from worker.inference.prefixes import Stored
from worker.inference.prompt import ChatTokenizer
from worker.inference.ragged import KvCache, RaggedModel
from worker.inference.stream import TextBuffer
from worker.models import ModelDir
from worker.proofs.replay import Computed

# Tokens computed at once: scores of a whole vocabulary are kept for each of an exact block.
_EXACT_TOKENS: Final = 64
_BATCH_TOKENS: Final = 2048
# Tokens that prompts must have in common for computing them apart to pay.
_WORTH_SHARING: Final = 8


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

    def batch(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> Iterator[Computed]:
        """Computes prompts and answers together, as fast as it goes; a few are in memory at a time."""
        shared = self._opening([prompt for prompt, _ in pairs])
        waiting = deque(pairs)
        while waiting:
            taken = [waiting.popleft()]
            tokens = _length(taken[0])
            while waiting and (tokens := tokens + _length(waiting[0])) <= _BATCH_TOKENS:
                taken.append(waiting.popleft())
            for states in self._states(taken, shared):
                # One by one: scores of all would be new memory each time, which takes as long as the product.
                with torch.inference_mode():
                    scores = self._model.scores(states)
                yield Computed(scores.numpy(), states.cpu())

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

    @torch.inference_mode()
    def _opening(self, prompts: Sequence[Sequence[int]]) -> Stored | None:
        """Keys and values of what all prompts begin with, as a chat template has it; if it is worth it."""
        alike = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
        # Of each at least the last token is computed for itself: its state decides the first of the answer.
        count = min([len(list(alike)), *(len(prompt) - 1 for prompt in prompts)])
        if len(prompts) == 1 or count < _WORTH_SHARING:
            return None
        cache = KvCache(count)
        self._model.states([cache], [prompts[0][:count]])
        return self._model.copy_of(cache, 0)

    @torch.inference_mode()
    def _states(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], shared: Stored | None
    ) -> list[Tensor]:
        """States that decide the tokens of each answer, `(tokens, width)`."""
        caches, rest = [], []
        for prompt, answer in pairs:
            cache = KvCache(len(prompt) + len(answer))
            if shared is not None:
                self._model.restore(cache, shared)
            caches.append(cache)
            # The state at a token decides the next one, so the last of each answer need not be computed.
            rest.append([*prompt, *answer[:-1]][cache.length :])
        found = zip(pairs, self._model.states(caches, rest), strict=True)
        return [states[len(states) - max(1, len(answer)) :][: len(answer)] for (_, answer), states in found]


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

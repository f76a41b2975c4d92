"""Tokens of a conversation, and text of tokens, as the model's own tokenizer has them."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jinja2 import TemplateError
from transformers import AutoTokenizer

from marketplace.protocol.payloads import ChatPayload, Payload
from worker.inference.errors import EmptyInput, EngineFailed, OutOfContext, TemplateRefused, WrongTask

_ROOM_FOR_ANSWER: Final = 1


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked, as tokens. `max_tokens` is clipped to what the context leaves."""

    payload: ChatPayload
    tokens: list[int]
    max_tokens: int


class ChatTokenizer:
    """Tokenizer of a chat model; safe to use from many threads."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = open_tokenizer(path)
        if not self._tokenizer.chat_template:
            raise EngineFailed(f"{path.name} has no chat template; serve an instruction-tuned model")
        self.context_tokens = model_context(path)
        self._lock = threading.Lock()
        # Clears truncation a tokenizer.json may ask for, now: later it would race with `decode`.
        self._tokenizer.encode("", add_special_tokens=False)
        self.ends = _end_tokens(path, self._tokenizer)

    def limit(self, tokens: int) -> None:
        """Keeps prompt plus answer within `tokens`, should the model's context be longer."""
        self.context_tokens = min(tokens, self.context_tokens)

    def prompt(self, payload: Payload) -> Prompt:
        """Tokens of the conversation, up to where the answer begins.

        Raises:
            BadRequest: another task, nothing to answer, a role the template does not know, or too long.
        """
        if not isinstance(payload, ChatPayload):
            raise WrongTask(payload.task, "chat")
        if not any(message.content.strip() for message in payload.messages):
            raise EmptyInput("messages")
        tokens = self._encode([message.model_dump() for message in payload.messages])
        room = self.context_tokens - len(tokens)
        if room < _ROOM_FOR_ANSWER:
            raise OutOfContext(len(tokens), self.context_tokens)
        return Prompt(payload, tokens, min(payload.max_tokens, room))

    def count(self, text: str) -> int:
        """Tokens of a text by itself, without special ones."""
        with self._lock:
            return len(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of the tokens, without the special ones."""
        return str(
            self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def spelled(self, token: int) -> str:
        """A token by itself, special ones by their names."""
        return str(
            self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        )

    def _encode(self, messages: list[dict[str, str]]) -> list[int]:
        # One at a time: encoding reads and sets state inside the tokenizer.
        with self._lock:
            try:
                text = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True
                )
            except TemplateError as error:
                raise TemplateRefused(str(error)) from error
            return list(self._tokenizer.encode(text, add_special_tokens=False))


def open_tokenizer(path: Path) -> Any:
    """The tokenizer in a model directory. Raises `EngineFailed`."""
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        raise EngineFailed(f"{path.name} has no tokenizer that can be read: {error}") from error


def model_context(path: Path) -> int:
    """Longest context by config.json. Raises `EngineFailed`."""
    config = json.loads((path / "config.json").read_bytes())
    length = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(length, int):
        raise EngineFailed(f"config.json of {path.name} does not say how long a context may be")
    return length


def _end_tokens(path: Path, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's, and those of generation_config.json."""
    file = path / "generation_config.json"
    stated = json.loads(file.read_bytes()).get("eos_token_id") if file.is_file() else None
    listed = stated if isinstance(stated, list) else [stated]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)

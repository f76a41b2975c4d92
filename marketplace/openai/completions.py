"""OpenAI's older text completions. A prompt is one user turn, so the model's chat template applies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import Field

from marketplace.openai import requests
from marketplace.openai.answers import Piece, finish_of
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import (
    MAX_OUTPUT_TOKENS,
    MAX_TOP_LOGPROBS,
    Answer,
    ChatMessage,
    ChatPayload,
    Logprobs,
)

# What OpenAI's own route writes where nothing is said.
DEFAULT_MAX_TOKENS: Final = 16


class CompletionCall(requests.Choices):
    """Body of `POST /v1/completions`."""

    with_effect: ClassVar[Mapping[str, tuple[object, ...]]] = {
        **requests.WITH_EFFECT,
        "echo": (False,),
        "suffix": ("",),
    }

    prompt: str | list[str] | list[int] | list[list[int]]
    best_of: int | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT_TOKENS)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)

    def payloads(self, fresh_seed: int) -> list[ChatPayload]:
        """One request a choice: the first prompt's choices, then the next one's.

        Raises:
            BadRequest: it cannot be expressed.
        """
        self.refuse_unsupported()
        count = self.n or 1
        if self.best_of not in (None, count):
            raise BadRequest(
                ErrorCode.UNSUPPORTED, "best_of is not supported; ask for n and choose", param="best_of"
            )
        prompts = [text for text in self._texts() for _ in range(count)]
        if not 0 < len(prompts) <= requests.MAX_CHOICES:
            detail = f"prompts times n must be 1 to {requests.MAX_CHOICES}; split the call"
            raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="prompt")
        return [
            self.chat(
                [ChatMessage(role="user", content=text)],
                max_tokens=self.max_tokens or DEFAULT_MAX_TOKENS,
                seed=self.seed_of(fresh_seed, choice),
                stop=self.stop,
                logprobs=self.logprobs,
            )
            for choice, text in enumerate(prompts)
        ]

    def _texts(self) -> list[str]:
        given = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        texts = [text for text in given if isinstance(text, str)]
        if len(texts) < len(given):
            detail = "prompt must be text; token ids are not read"
            raise BadRequest(ErrorCode.UNSUPPORTED, detail, param="prompt")
        return texts


def text_completion(job_id: str, model: str, created: int, *found: Answer) -> dict[str, Any]:
    """A whole answer of one choice or more, without usage and receipt."""
    choices = [
        _choice(index, Piece(start=0, text=answer.text, told=answer.logprobs), finish_of(answer))
        for index, answer in enumerate(found)
    ]
    return _body(job_id, model, created, choices)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextChunks:
    """Chunks of one streamed call, of one choice or more."""

    job_id: str
    model: str
    created: int

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """What comes before any text."""
        return [self.text(index, Piece(start=0, text="")) for index in range(choices)]

    def text(self, index: int, piece: Piece) -> dict[str, Any]:
        """The next piece of a choice's text."""
        return _body(self.job_id, self.model, self.created, [_choice(index, piece, None)])

    def end(self, index: int, answer: Answer) -> dict[str, Any]:
        """Why a choice's text ends."""
        choice = _choice(index, Piece(start=len(answer.text), text=""), finish_of(answer))
        return _body(self.job_id, self.model, self.created, [choice])

    def last(self) -> dict[str, Any]:
        """The one that usage and receipts are added to."""
        return _body(self.job_id, self.model, self.created, [])


def _body(job_id: str, model: str, created: int, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"cmpl-{job_id.removeprefix('job_')}",
        "object": "text_completion",
        "created": created,
        "model": model,
        "choices": choices,
    }


def _choice(index: int, piece: Piece, finish: str | None) -> dict[str, Any]:
    return {
        "index": index,
        "text": piece.text,
        "logprobs": _logprobs(piece) if piece.told else None,
        "finish_reason": finish,
    }


def _logprobs(piece: Piece) -> dict[str, Any]:
    rows: Logprobs = piece.told
    return {
        "tokens": [row["token"] for row in rows],
        "token_logprobs": [row["logprob_micro"] / 1e6 for row in rows],
        "top_logprobs": [
            {other["token"]: other["logprob_micro"] / 1e6 for other in row["top"]} for row in rows
        ],
        "text_offset": _offsets(piece),
    }


def _offsets(piece: Piece) -> list[int]:
    """Where each token starts in the whole text; one that is part of a character, where that starts."""
    found, at = [], 0
    for row in piece.told:
        token = row["token"]
        here = piece.text.find(token, at)
        start = at if here < 0 else here
        found.append(piece.start + start)
        at = at if here < 0 else here + len(token)
    return found

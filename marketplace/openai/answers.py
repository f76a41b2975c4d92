"""Answers in OpenAI's shapes; what they cost is in `billing`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from marketplace.protocol.payloads import Answer, Logprobs, Payload

KEEP_ALIVE_SECONDS: Final = 75
"""How long an idle connection stays open. Stock clients keep theirs 5 s (httpx) or for good (urllib3): a
server that closes in the moment in which one of them writes leaves it unknown whether the call was taken."""
_FINISH: Final = {"stop": "stop", "length": "length", "deadline": "length"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The next piece of a streamed text: where it starts in it, and log-probabilities that came with it."""

    start: int
    text: str
    told: Logprobs = ()


def task_answer(task: str, kind: type[Payload], model: str, answer: Answer) -> dict[str, Any]:
    """The answer of any other task, without usage and receipt."""
    return {"object": task, "model": model, **kind.shown(answer)}


def chat_completion(job_id: str, model: str, created: int, *found: Answer) -> dict[str, Any]:
    """A whole chat answer of one choice or more, without usage and receipt."""
    return {
        "id": f"chatcmpl-{job_id.removeprefix('job_')}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(index, answer) for index, answer in enumerate(found)],
    }


def chat_chunk(
    job_id: str,
    model: str,
    created: int,
    delta: dict[str, Any] | None,
    finish: str | None = None,
    logprobs: Logprobs = (),
    index: int = 0,
) -> dict[str, Any]:
    """One streamed chunk; without a delta, the last one that carries usage."""
    choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": logprobs_of(logprobs)}
    choices = [] if delta is None else [choice]
    return {
        "id": f"chatcmpl-{job_id.removeprefix('job_')}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": choices,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatChunks:
    """Chunks of one streamed chat call, of one choice or more."""

    job_id: str
    model: str
    created: int

    def opening(self, choices: int) -> list[dict[str, Any]]:
        """What comes before any text."""
        return [self._chunk({"role": "assistant", "content": ""}, index=index) for index in range(choices)]

    def text(self, index: int, piece: Piece) -> dict[str, Any]:
        """The next piece of a choice's text."""
        return self._chunk({"content": piece.text}, told=piece.told, index=index)

    def end(self, index: int, answer: Answer) -> dict[str, Any]:
        """Why a choice's text ends."""
        return self._chunk({}, finish_of(answer), index=index)

    def last(self) -> dict[str, Any]:
        """The one that usage and receipts are added to."""
        return self._chunk(None)

    def _chunk(
        self,
        delta: dict[str, Any] | None,
        finish: str | None = None,
        *,
        told: Logprobs = (),
        index: int = 0,
    ) -> dict[str, Any]:
        return chat_chunk(self.job_id, self.model, self.created, delta, finish, told, index)


def logprobs_of(logprobs: Logprobs) -> dict[str, Any] | None:
    """OpenAI's log-probabilities; None when there are none."""
    if not logprobs:
        return None
    rows = [_scored(row) | {"top_logprobs": [_scored(other) for other in row["top"]]} for row in logprobs]
    return {"content": rows, "refusal": None}


def embeddings(model: str, answer: Answer, encoding: str) -> dict[str, Any]:
    """A list of vectors, without usage and receipt."""
    rows: list[Any] = (
        [base64.b64encode(vector).decode() for vector in answer.vectors]
        if encoding == "base64"
        else answer.floats()
    )
    data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
    return {"object": "list", "data": data, "model": model}


def finish_of(answer: Answer) -> str:
    """OpenAI's word for why the text ends."""
    return _FINISH.get(answer.finish or "", "length")


def _choice(index: int, answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    told = logprobs_of(answer.logprobs)
    return {"index": index, "message": message, "finish_reason": finish_of(answer), "logprobs": told}


def _scored(row: Mapping[str, Any]) -> dict[str, Any]:
    token = row["token"]
    # Part of a character has no text of its own, and its bytes are not on the wire.
    data = None if "\N{REPLACEMENT CHARACTER}" in token else list(token.encode())
    return {"token": token, "logprob": row["logprob_micro"] / 1e6, "bytes": data}

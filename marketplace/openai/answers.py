"""Answers in OpenAI's shapes, with what they cost."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from marketplace.openai import money
from marketplace.protocol.messages import Receipt
from marketplace.protocol.money import format_atoms
from marketplace.protocol.payloads import Answer, Logprobs, Payload

_FINISH: Final = {"stop": "stop", "length": "length", "deadline": "length"}


def usage(
    task: str, receipt: Receipt, *, ceiling_atoms: int, energy_method: str, decimals: int, symbol: str
) -> dict[str, Any]:
    """OpenAI's usage, with what it cost; the rest of the ceiling never left the session."""
    counts: dict[str, Any] = {"prompt_tokens": receipt.units_in}
    if task == "chat":
        counts["completion_tokens"] = receipt.units_out
    return counts | {
        "total_tokens": receipt.units_in + receipt.units_out,
        "cost": money.to_number(receipt.amount_atoms, decimals),
        "cost_details": {
            "currency": symbol,
            "amount": format_atoms(receipt.amount_atoms, decimals),
            "atoms": str(receipt.amount_atoms),
            "ceiling_atoms": str(ceiling_atoms),
            "refunded_atoms": str(ceiling_atoms - receipt.amount_atoms),
            "energy_millijoules": str(receipt.energy_millijoules),
            "energy_method": energy_method,
        },
    }


def task_answer(task: str, kind: type[Payload], model: str, answer: Answer) -> dict[str, Any]:
    """The answer of any other task, without usage and receipt."""
    return {"object": task, "model": model, **kind.shown(answer)}


def chat_completion(job_id: str, model: str, created: int, answer: Answer) -> dict[str, Any]:
    """A whole chat answer, without usage and receipt."""
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    told = logprobs_of(answer.logprobs)
    choice = {"index": 0, "message": message, "finish_reason": finish_of(answer), "logprobs": told}
    return {
        "id": f"chatcmpl-{job_id.removeprefix('job_')}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
    }


def chat_chunk(
    job_id: str,
    model: str,
    created: int,
    delta: dict[str, Any] | None,
    finish: str | None = None,
    logprobs: Logprobs = (),
) -> dict[str, Any]:
    """One streamed chunk; without a delta, the last one that carries usage."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs_of(logprobs)}
    choices = [] if delta is None else [choice]
    return {
        "id": f"chatcmpl-{job_id.removeprefix('job_')}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": choices,
    }


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


def _scored(row: Mapping[str, Any]) -> dict[str, Any]:
    token = row["token"]
    # Part of a character has no text of its own, and its bytes are not on the wire.
    data = None if "\N{REPLACEMENT CHARACTER}" in token else list(token.encode())
    return {"token": token, "logprob": row["logprob_micro"] / 1e6, "bytes": data}

"""Log-probabilities of generated tokens: what they look like, and whether they are those asked for."""

from __future__ import annotations

from typing import Final

from pydantic import Field, ValidationError

from marketplace.protocol.answers import Answer
from marketplace.protocol.canonical import canonical_json
from marketplace.protocol.tasks.base import Strict

MAX_TOP_LOGPROBS: Final = 20
# Millionths; what stands for a token that could not have come.
LEAST_LOGPROB_MICRO: Final = -9_999_000_000


class Scored(Strict):
    """A token and the millionths of its natural log-probability, before temperature and top-p."""

    id: int = Field(ge=0, lt=1 << 32)
    token: str
    logprob_micro: int = Field(ge=LEAST_LOGPROB_MICRO, le=0)


class TokenLogprob(Scored):
    """A token of an answer, and the likeliest in its place."""

    top: tuple[Scored, ...] = Field(strict=False)


def token_logprobs(answer: Answer) -> list[TokenLogprob]:
    """Log-probabilities of an answer. Raises `ValidationError` for rows that are none."""
    return [TokenLogprob.model_validate_json(canonical_json(row)) for row in answer.logprobs]


def logprobs_misfit(answer: Answer, asked: int | None, *, whole: bool) -> str | None:
    """Why an answer's log-probabilities are not those that were asked for; None when they are."""
    if asked is None:
        return "it holds log-probabilities that were not asked for" if answer.logprobs else None
    if whole and answer.text and not answer.logprobs:
        return "the log-probabilities are missing"
    try:
        tokens = token_logprobs(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return f"logprobs {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    more = any(len(token.top) > asked for token in tokens)
    return "a token has more alternatives than were asked for" if more else None

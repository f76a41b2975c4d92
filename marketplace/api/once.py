"""At the HTTP edge: how a call says that it was sent before, and how its answer says so."""

from __future__ import annotations

from typing import Final

from fastapi import Request
from pydantic import BaseModel

from marketplace.api import budget
from marketplace.chain.deployment import Deployment
from marketplace.dispatch import once
from marketplace.dispatch.terms import Once
from marketplace.flow import Running
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import canonical_json

REPLAYED: Final = "idempotency-replayed"


def once_of(request: Request, key: str, call: BaseModel) -> Once:
    """What tells this call from its repetition; `key` is the paying key. Raises `BadRequest`."""
    given = request.headers.get("idempotency-key")
    return Once(
        name=None if given is None else name_of(key, given),
        fingerprint=fingerprint_of(request, call),
        # OpenAI's clients count their own retries, and send no idempotency key.
        retries=_count(request.headers.get("x-stainless-retry-count", "")),
    )


def fingerprint_of(request: Request, call: BaseModel) -> str:
    """Digest of a call as it was asked."""
    return once.fingerprint(request.url.path, canonical_json(call.model_dump(mode="json")))


def name_of(key: str, given: str) -> str:
    """What a call with this idempotency key is known by. Raises `BadRequest`."""
    if not 0 < len(given) <= once.MOST_NAME or not given.isprintable():
        detail = f"an idempotency key is 1 to {once.MOST_NAME} printable characters"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, param="Idempotency-Key")
    return once.idempotency_name(key, given)


def mark(request: Request, running: Running, deployment: Deployment) -> None:
    """Lets whatever answers this request, an error too, name its job and what is left."""
    request.state.job_id = running.job_id
    replayed = {REPLAYED: "true"} if running.replayed else {}
    request.state.answer_headers = replayed | budget.headers(running.left, deployment)


def _count(text: str) -> int:
    return min(int(text), once.MOST_RETRIES) if text.isascii() and text.isdigit() and len(text) < 9 else 0

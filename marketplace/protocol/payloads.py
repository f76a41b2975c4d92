"""What a job asks and answers: the bytes under `requestHash` and `responseHash`.

A request payload is one canonical JSON object, integers only; `TASKS` knows its type by its field `task`. A
response is a list of chunks, each a canonical JSON object; `Answer` folds them back. Both ends hash the bytes
they hold and never re-encode.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from marketplace.protocol.answers import CHUNK_TEXTS as CHUNK_TEXTS
from marketplace.protocol.answers import Answer as Answer
from marketplace.protocol.answers import Logprobs as Logprobs
from marketplace.protocol.answers import embeddings_chunk as embeddings_chunk
from marketplace.protocol.answers import finish_chunk as finish_chunk
from marketplace.protocol.answers import rows_chunk as rows_chunk
from marketplace.protocol.answers import text_chunk as text_chunk
from marketplace.protocol.canonical import canonical_json as canonical_json
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from marketplace.protocol.tasks.base import MAX_INPUTS as MAX_INPUTS
from marketplace.protocol.tasks.base import Payload as Payload
from marketplace.protocol.tasks.chat import MAX_MESSAGES as MAX_MESSAGES
from marketplace.protocol.tasks.chat import MAX_OUTPUT_TOKENS as MAX_OUTPUT_TOKENS
from marketplace.protocol.tasks.chat import ChatMessage as ChatMessage
from marketplace.protocol.tasks.chat import ChatPayload as ChatPayload
from marketplace.protocol.tasks.classify import ClassifyPayload as ClassifyPayload
from marketplace.protocol.tasks.embed import EmbedPayload as EmbedPayload
from marketplace.protocol.tasks.images import ImagesPayload as ImagesPayload
from marketplace.protocol.tasks.logprobs import LEAST_LOGPROB_MICRO as LEAST_LOGPROB_MICRO
from marketplace.protocol.tasks.logprobs import MAX_TOP_LOGPROBS as MAX_TOP_LOGPROBS
from marketplace.protocol.tasks.logprobs import TokenLogprob as TokenLogprob
from marketplace.protocol.tasks.logprobs import token_logprobs as token_logprobs
from marketplace.protocol.tasks.rerank import RerankPayload as RerankPayload

TASKS: Final[dict[str, type[Payload]]] = {
    "chat": ChatPayload,
    "embed": EmbedPayload,
    "classify": ClassifyPayload,
    "rerank": RerankPayload,
    "classify-image": ImagesPayload,
}
BLANK_MODEL: Final = "0x" + "00" * 32


class _Named(BaseModel):
    """Just enough of a payload to know its type."""

    task: str


def task_type(task: str) -> type[Payload]:
    """Payload type of a task. Raises `BadRequest` for one nobody knows."""
    kind = TASKS.get(task)
    if kind is None:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"payload task: one of {', '.join(TASKS)}", param="task")
    return kind


def build_payload(task: str, model_id: str, body: Mapping[str, Any]) -> Payload:
    """Payload of its fields, apart from `v`, `task` and `model`.

    Raises:
        BadRequest: an unknown task, or a field that is missing, unknown or out of its range.
    """
    kind = task_type(task)
    try:
        return kind.model_validate({**body, "task": task, "model": model_id})
    except ValidationError as error:
        where, reason = _first(error)
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{where}: {reason}", param=where) from error


def encode_payload(payload: Payload) -> bytes:
    """Bytes to hash and send.

    Raises:
        BadRequest: text that is not valid Unicode (lone surrogates).
    """
    try:
        return canonical_json(payload.model_dump(mode="json"))
    except UnicodeEncodeError as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "text holds half a surrogate pair") from error


def parse_payload(data: bytes) -> Payload:
    """Payload of its bytes.

    Raises:
        BadRequest: not JSON, or not a payload of this version.
    """
    try:
        return task_type(_Named.model_validate_json(data).task).model_validate_json(data)
    except ValidationError as error:
        where, reason = _first(error)
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"payload {where}: {reason}") from error


def units_in_ceiling(payload: Payload) -> int:
    """Most input units a job can be billed for, known without a tokenizer."""
    return payload.most_units_in


def units_out_ceiling(payload: Payload) -> int:
    """Most output units a job can be billed for."""
    return payload.most_units_out


def seed_of(payload: Payload, order_hash: bytes) -> int:
    """The request's seed, else 64 bits of the order's hash: never the node's choice (PROTOCOL §7)."""
    if isinstance(payload, ChatPayload) and payload.seed is not None:
        return payload.seed
    return int.from_bytes(keccak(b"wattline seed" + order_hash)[:8], "big")


def _first(error: ValidationError) -> tuple[str, str]:
    """Where and why of the first of its reasons."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]

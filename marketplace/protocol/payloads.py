"""What a job asks and answers: the bytes under `requestHash` and `responseHash`.

A request payload is one canonical JSON object, integers only. A response is a list of chunks, each a
canonical JSON object; `Answer` folds them back. Both ends hash the bytes they hold and never re-encode.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak

MAX_INPUTS: Final = 2048
MAX_MESSAGES: Final = 1024
MAX_OUTPUT_TOKENS: Final = 32_768
CHUNK_TEXTS: Final = 16
_TEMPLATE_UNITS: Final = 64
_MESSAGE_UNITS: Final = 16
_TEXT_UNITS: Final = 4

ModelId = Annotated[str, StringConstraints(pattern="^0x[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ChatMessage(_Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatPayload(_Strict):
    """Text generation. Temperature and top-p in thousandths; temperature 0 is greedy."""

    v: Literal[1] = 1
    task: Literal["chat"] = "chat"
    model: ModelId
    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=MAX_MESSAGES, strict=False)
    max_tokens: int = Field(ge=1, le=MAX_OUTPUT_TOKENS)
    temperature_milli: int = Field(default=0, ge=0, le=2000)
    top_p_milli: int = Field(default=1000, ge=1, le=1000)
    seed: int | None = Field(default=None, ge=0, lt=1 << 64)
    stop: tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=4, strict=False
    )


class EmbedPayload(_Strict):
    """Text embeddings, one vector an input, in order."""

    v: Literal[1] = 1
    task: Literal["embed"] = "embed"
    model: ModelId
    input: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = Field(
        min_length=1, max_length=MAX_INPUTS, strict=False
    )


Payload = ChatPayload | EmbedPayload
_ADAPTER: TypeAdapter[Payload] = TypeAdapter(Annotated[Payload, Field(discriminator="task")])


def canonical_json(value: Any) -> bytes:
    """Compact UTF-8 JSON with sorted keys."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


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
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"payload {where}: {first['msg']}") from error


def units_in_ceiling(payload: Payload) -> int:
    """Most input units a job can be billed for, known without a tokenizer.

    A byte-level or word-piece token covers at least one byte of text; templates add bounded overhead.
    """
    if isinstance(payload, EmbedPayload):
        return sum(len(text.encode()) + _TEXT_UNITS for text in payload.input)
    turns = sum(len(message.content.encode()) + _MESSAGE_UNITS for message in payload.messages)
    return turns + _TEMPLATE_UNITS


def units_out_ceiling(payload: Payload) -> int:
    """Most output units a job can be billed for."""
    return payload.max_tokens if isinstance(payload, ChatPayload) else 0


def seed_of(payload: Payload, order_hash: bytes) -> int:
    """The request's seed, else 64 bits of the order's hash: never the node's choice (PROTOCOL §7)."""
    if isinstance(payload, ChatPayload) and payload.seed is not None:
        return payload.seed
    return int.from_bytes(keccak(b"wattline seed" + order_hash)[:8], "big")


def text_chunk(text: str) -> bytes:
    """Response chunk with the next piece of generated text."""
    return canonical_json({"text": text})


def finish_chunk(finish: str) -> bytes:
    """Last response chunk of a generation: `stop`, `length` or `deadline`."""
    return canonical_json({"finish": finish})


def embeddings_chunk(first_index: int, vectors: Iterable[bytes]) -> bytes:
    """Response chunk with consecutive vectors, each little-endian float32 bytes."""
    rows = [
        {"index": first_index + i, "vector": base64.b64encode(vector).decode()}
        for i, vector in enumerate(vectors)
    ]
    return canonical_json({"embeddings": rows})


class Answer:
    """Folds response chunks into text, finish reason and vectors."""

    def __init__(self, chunks: Iterable[bytes] = ()) -> None:
        self.text = ""
        self.finish: str | None = None
        self.vectors: list[bytes] = []
        for chunk in chunks:
            self.add(chunk)

    def add(self, chunk: bytes) -> str:
        """Takes the next chunk; gives the text it adds.

        Raises:
            ValueError: bytes that are no response chunk, or vectors out of order.
        """
        body = json.loads(chunk)
        if not isinstance(body, dict) or len(body) != 1:
            raise ValueError("a response chunk is an object with one field")
        if "text" in body:
            self.text += body["text"]
            return str(body["text"])
        if "finish" in body:
            self.finish = str(body["finish"])
        elif "embeddings" in body:
            self._add_vectors(body["embeddings"])
        else:
            raise ValueError(f"a response chunk cannot hold {next(iter(body))!r}")
        return ""

    def floats(self) -> list[list[float]]:
        """Vectors as lists of numbers."""
        return [list(struct.unpack(f"<{len(v) // 4}f", v)) for v in self.vectors]

    def _add_vectors(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["index"] != len(self.vectors):
                raise ValueError(f"vector {row['index']} arrived, expected {len(self.vectors)}")
            self.vectors.append(base64.b64decode(row["vector"], validate=True))

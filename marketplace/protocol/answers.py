"""What a job answers: chunks, each a canonical JSON object of one field, and what they fold into.

    text        the next piece of a generated text
    finish      how a generation ended
    embeddings  consecutive vectors
    rows        consecutive rows of any other task, one an input

Where they were asked for, a chunk of the first two kinds has in `logprobs` those of its tokens too.

Whoever hashes a chunk hashes the bytes it holds and never re-encodes.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic_core import from_json

from marketplace.protocol.canonical import canonical_json

CHUNK_TEXTS: Final = 16


Logprobs = Sequence[Mapping[str, Any]]


def text_chunk(text: str, logprobs: Logprobs = ()) -> bytes:
    """Response chunk with the next piece of generated text, and log-probabilities that were asked for."""
    return canonical_json({"text": text, **_told(logprobs)})


def finish_chunk(finish: str, logprobs: Logprobs = ()) -> bytes:
    """Last response chunk of a generation: `stop`, `length`, `deadline` or `cancelled`."""
    return canonical_json({"finish": finish, **_told(logprobs)})


def embeddings_chunk(first_index: int, vectors: Iterable[bytes]) -> bytes:
    """Response chunk with consecutive vectors, each little-endian float32 bytes."""
    rows = [
        {"index": first_index + i, "vector": base64.b64encode(vector).decode()}
        for i, vector in enumerate(vectors)
    ]
    return canonical_json({"embeddings": rows})


def rows_chunk(first_index: int, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Response chunk with consecutive rows; what is in a row is its task's matter, whole numbers only."""
    return canonical_json({"rows": [{**row, "index": first_index + i} for i, row in enumerate(rows)]})


class Answer:
    """Folds response chunks into text, finish reason, log-probabilities, vectors and rows."""

    def __init__(self, chunks: Iterable[bytes] = ()) -> None:
        self.text = ""
        self.finish: str | None = None
        self.logprobs: list[dict[str, Any]] = []
        self.vectors: list[bytes] = []
        self.rows: list[dict[str, Any]] = []
        for chunk in chunks:
            self.add(chunk)

    def add(self, chunk: bytes) -> str:
        """Takes the next chunk; gives the text it adds.

        Raises:
            ValueError: bytes that are no response chunk, or vectors or rows out of order.
        """
        # Not json's own parser: with the recursion limit that web3 sets, deep brackets overrun its stack.
        body = from_json(chunk, allow_inf_nan=False)
        if isinstance(body, dict) and ("text" in body or "finish" in body):
            self.logprobs += [dict(row) for row in body.pop("logprobs", ())]
        if not isinstance(body, dict) or len(body) != 1:
            raise ValueError("a response chunk is an object with one field")
        if "text" in body:
            self.text += body["text"]
            return str(body["text"])
        if "finish" in body:
            self.finish = str(body["finish"])
        elif "embeddings" in body:
            self._add_vectors(body["embeddings"])
        elif "rows" in body:
            self._add_rows(body["rows"])
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

    def _add_rows(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["index"] != len(self.rows):
                raise ValueError(f"row {row['index']} arrived, expected {len(self.rows)}")
            self.rows.append(dict(row))


def _told(logprobs: Logprobs) -> dict[str, Any]:
    return {"logprobs": [dict(row) for row in logprobs]} if logprobs else {}

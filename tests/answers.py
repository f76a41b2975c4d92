"""Made-up answers to any payload, in the form its task wants."""

from __future__ import annotations

import struct
from typing import Any

from marketplace.protocol.payloads import (
    ChatPayload,
    ClassifyPayload,
    EmbedPayload,
    ImagesPayload,
    Payload,
    RerankPayload,
    embeddings_chunk,
    finish_chunk,
    rows_chunk,
    text_chunk,
)
from marketplace.protocol.tasks.scores import scored


def chunks_for(
    payload: Payload, *, text: tuple[str, ...] = ("Hello", ", world"), vector: tuple[float, ...] = (1.0, 2.0)
) -> list[bytes]:
    """Chunks of a whole answer; the last label, and the last document, win."""
    if isinstance(payload, ChatPayload):
        told = [] if payload.logprobs is None else [_told(payload.logprobs)]
        return [*(text_chunk(piece, told) for piece in text), finish_chunk("stop")]
    if isinstance(payload, EmbedPayload):
        return [embeddings_chunk(0, [struct.pack(f"<{len(vector)}f", *vector) for _ in payload.input])]
    if isinstance(payload, ClassifyPayload):
        shares = [100_000 * i for i in range(len(payload.labels))]
        return [rows_chunk(0, [scored(payload.labels, shares) for _ in payload.input])]
    if isinstance(payload, RerankPayload):
        return [
            rows_chunk(0, [{"millionths": 100_000 * i - 9_000_000} for i, _ in enumerate(payload.documents)])
        ]
    assert isinstance(payload, ImagesPayload)
    labels = ("cat", "dog", "owl")
    return [rows_chunk(0, [scored(labels, (1, 2, 3), payload.top) for _ in payload.images])]


def _told(top: int) -> dict[str, Any]:
    likeliest = {"id": 8, "token": "\N{REPLACEMENT CHARACTER}", "logprob_micro": -100_000}
    return {"id": 7, "token": " é", "logprob_micro": -2_500_000, "top": [likeliest][:top]}

"""Made-up answers to any payload, in the form its task wants."""

from __future__ import annotations

import struct

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
        return [*map(text_chunk, text), finish_chunk("stop")]
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

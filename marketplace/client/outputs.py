"""What a finished job hands on to the next: the answer of each task by names that templates can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from marketplace.protocol.payloads import (
    Answer,
    ChatPayload,
    ClassifyPayload,
    EmbedPayload,
    ImagesPayload,
    Payload,
    RerankPayload,
    task_type,
)

# Text has about 4 bytes a token; a forecast allows for twice as many.
_BYTES_A_TOKEN: Final = 8
_LABEL_BYTES: Final = 64
OUTPUTS: Final[dict[str, tuple[str, ...]]] = {
    "chat": ("text", "finish"),
    "embed": ("vectors", "vector"),
    "classify": ("results", "label", "labels"),
    "rerank": ("results", "best", "order"),
    "classify-image": ("results", "label", "labels"),
}
ITEMS: Final = "items"


def outputs_of(payload: Payload, answer: Answer) -> dict[str, Any]:
    """An answer by the names of `OUTPUTS`; results say which text or document they are of."""
    shown = task_type(payload.task).shown(answer)
    if isinstance(payload, ChatPayload):
        return {"text": answer.text, "finish": answer.finish}
    if isinstance(payload, EmbedPayload):
        return {"vectors": shown["embeddings"], "vector": shown["embeddings"][0]}
    if isinstance(payload, RerankPayload):
        rows = [{**row, "document": payload.documents[row["index"]]} for row in shown["results"]]
        return _ranked(rows)
    texts: Sequence[str] = payload.input if isinstance(payload, ClassifyPayload) else ()
    return _labelled([_with_input(row, texts) for row in shown["results"]])


def stand_in(payload: Payload) -> dict[str, Any]:
    """Outputs as large as they are likely to come, for pricing what reads them before they exist."""
    if isinstance(payload, ChatPayload):
        return {"text": "x" * (payload.max_tokens * _BYTES_A_TOKEN), "finish": "stop"}
    if isinstance(payload, EmbedPayload):
        vectors = [[0.0] for _ in payload.input]
        return {"vectors": vectors, "vector": vectors[0]}
    if isinstance(payload, RerankPayload):
        longest = sorted(payload.documents, key=len, reverse=True)
        return _ranked([{"index": i, "document": document} for i, document in enumerate(longest)])
    if isinstance(payload, ClassifyPayload):
        label = max(payload.labels, key=len)
        return _labelled(
            [{"index": i, "label": label, "input": text} for i, text in enumerate(payload.input)]
        )
    count = len(payload.images) if isinstance(payload, ImagesPayload) else 1
    return _labelled([{"index": i, "label": "x" * _LABEL_BYTES} for i in range(count)])


def gathered(parts: Sequence[Mapping[str, Any]], items: Sequence[Any], task: str) -> dict[str, Any]:
    """Outputs of a step that ran once for each item: every name a list, and `items` with all of each."""
    lists = {name: [part[name] for part in parts] for name in OUTPUTS[task]}
    return lists | {ITEMS: [{**part, "item": item} for part, item in zip(parts, items, strict=True)]}


def _ranked(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"results": rows, "best": rows[0]["document"], "order": [row["index"] for row in rows]}


def _labelled(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"results": rows, "label": rows[0]["label"], "labels": [row["label"] for row in rows]}


def _with_input(row: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    return {**row, "input": texts[row["index"]]} if texts else row

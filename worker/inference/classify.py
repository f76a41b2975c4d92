"""`classify`: zero-shot text classification by the log-probability of each label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from marketplace.protocol.payloads import ClassifyPayload
from marketplace.protocol.tasks.scores import scored
from worker.inference.batch import Item
from worker.inference.errors import EmptyInput
from worker.inference.scored import ScoredTask
from worker.inference.scorer import Row


class ClassifyTask(ScoredTask):
    """Labels by probability, the whole of them being 1."""

    payload = ClassifyPayload
    version = "classify-1"

    def items(self, payload: ClassifyPayload) -> list[Item]:
        """Each text with the question and all labels. Raises `BadRequest`."""
        branches = [f" {label.strip()}" for label in payload.labels]
        items = []
        for place, text in enumerate(payload.input):
            if not text.strip():
                raise EmptyInput(f"input.{place}")
            row = self.scorer.row(f"{text}\n{payload.question}:", branches)
            items.append(Item(units=row.tokens, cost=row.padded, data=(row, payload.labels)))
        return items

    def compute(self, items: Sequence[tuple[Row, tuple[str, ...]]]) -> list[dict[str, Any]]:
        """Rows of labels and probabilities."""
        sums = self.scorer.logprobs([row for row, _ in items])
        return [scored(labels, _millionths(own)) for (_, labels), own in zip(items, sums, strict=True)]


def _millionths(logs: Sequence[float]) -> list[int]:
    """Probabilities of logarithms that need not add up to anything."""
    powers = [math.exp(one - max(logs)) for one in logs]
    return [round(1_000_000 * power / sum(powers)) for power in powers]

"""`rerank`: documents by the log-probability of a query after each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marketplace.protocol.payloads import RerankPayload
from worker.inference.batch import Item
from worker.inference.errors import EmptyInput
from worker.inference.scored import ScoredTask
from worker.inference.scorer import Row


class RerankTask(ScoredTask):
    """Mean log-probability of the query's tokens: its order is that of the sum."""

    payload = RerankPayload
    version = "rerank-1"

    def items(self, payload: RerankPayload) -> list[Item]:
        """Each document with the query. Raises `BadRequest`."""
        if not payload.query.strip():
            raise EmptyInput("query")
        items = []
        for place, document in enumerate(payload.documents):
            if not document.strip():
                raise EmptyInput(f"documents.{place}")
            row = self.scorer.row(f"{document}\nQuestion:", [f" {payload.query.strip()}"])
            items.append(Item(units=row.tokens, cost=row.padded, data=row))
        return items

    def compute(self, items: Sequence[Row]) -> list[dict[str, Any]]:
        """Rows of scores in millionths."""
        sums = self.scorer.logprobs(items)
        return [
            {"millionths": round(1_000_000 * own[0] / row.compared)}
            for row, own in zip(items, sums, strict=True)
        ]

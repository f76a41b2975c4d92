"""What an infer process writes of its jobs: whatever came of all of them in one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.errors import ErrorCode, LostRace
from worker.ledger.base import Database, Plain
from worker.ledger.cancels import cancelled
from worker.ledger.chunks import HeldChunk, NewChunk, chunks_of
from worker.ledger.orders import UNFINISHED, HeldOrder, OrderState
from worker.ledger.receipts import HeldReceipt
from worker.ledger.signing import MakeReceipt, end

_CLAIM: Final = (
    "UPDATE job_order SET state = ?, worker = ?, worker_lease_until_ms = ?, attempts = attempts + 1"
    " WHERE order_hash = ? AND state IN (?, ?) AND worker_lease_until_ms <= ? RETURNING *"
)
_RUNNING: Final = "SELECT order_hash FROM job_order WHERE worker = ? AND state = ?"
_ADD: Final = "INSERT INTO chunk (order_hash, place, body, token_ids)"
_KEPT: Final = "ON CONFLICT DO NOTHING"


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenUp:
    """A claimed order, the chunks earlier attempts left, and whether its buyer wants no more of it."""

    order: HeldOrder
    chunks: tuple[HeldChunk, ...]
    cancelled: bool


class Page:
    """One transaction of one worker; nothing of it holds before it ends, and all of it afterwards."""

    def __init__(self, plain: Plain, worker: str) -> None:
        self._plain = plain
        self._worker = worker

    def add(self, chunks: Sequence[NewChunk]) -> set[bytes]:
        """Stores chunks of orders this worker holds; gives the orders it no longer holds.

        A chunk that is there already stays as it is: the first bytes are the ones that left.
        """
        hashes = {chunk.order_hash for chunk in chunks}
        running = self._plain.rows(_RUNNING, (self._worker, OrderState.RUNNING.value))
        mine = hashes & {bytes(row[0]) for row in running}
        rows = [
            (chunk.order_hash, chunk.index, chunk.body, json.dumps(chunk.token_ids))
            for chunk in chunks
            if chunk.order_hash in mine
        ]
        self._plain.insert(_ADD, rows, _KEPT)
        return hashes - mine

    def end(self, order_hash: bytes, make: MakeReceipt) -> HeldReceipt:
        """Ends an order this worker holds, as `Signing.once`. Raises `LostRace`."""
        # A lease of one's own stands until somebody else has taken it, whatever the time.
        return end(self._plain, order_hash, self._worker, make, now_ms=0)

    def take_up(self, order_hash: bytes, *, now_ms: int, until_ms: int) -> TakenUp:
        """Takes the worker lease and counts the attempt.

        Raises:
            LostRace: unknown, finished, or leased to a process that may still live; nothing is changed.
        """
        values = (OrderState.RUNNING.value, self._worker, until_ms, order_hash, *UNFINISHED, now_ms)
        claimed = self._plain.row(_CLAIM, values)
        if claimed is None:
            raise LostRace(ErrorCode.LEASE_LOST, "order is finished, or another process works on it")
        return TakenUp(
            order=HeldOrder(**claimed),
            chunks=tuple(chunks_of(self._plain, order_hash)),
            cancelled=bool(cancelled(self._plain, (order_hash,))),
        )


class Jobs:
    """Orders being worked on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take_up(self, order_hash: bytes, worker: str, *, now_ms: int, until_ms: int) -> TakenUp:
        """As `Page.take_up`, by itself."""
        with self.page(worker) as page:
            return page.take_up(order_hash, now_ms=now_ms, until_ms=until_ms)

    @contextmanager
    def page(self, worker: str) -> Iterator[Page]:
        """A transaction for what came of this worker's jobs."""
        with self._database.write_plain() as plain:
            yield Page(plain, worker)

"""Stores chunks before they are announced; waiting writers share one commit."""

from __future__ import annotations

import threading
from collections.abc import Callable

from marketplace.protocol.errors import ErrorCode, LostRace
from worker.ledger import Ledger, NewChunk


class ChunkSpool:
    """Group commit of the chunks of all jobs of one process.

    A thread that finds the writer busy leaves its chunk behind and waits; whoever writes next takes all.
    """

    def __init__(self, ledger: Ledger, worker: str, announce: Callable[[bytes], None]) -> None:
        self._ledger = ledger
        self._worker = worker
        self._announce = announce
        self._pending: list[NewChunk] = []
        self._lost: set[bytes] = set()
        self._queue_lock = threading.Lock()
        self._write_lock = threading.Lock()

    def put(self, chunk: NewChunk) -> None:
        """Returns once the chunk is stored.

        Raises:
            LostRace: this process no longer holds the order, or storing failed.
        """
        with self._queue_lock:
            self._pending.append(chunk)
        with self._write_lock:
            self._write()
        if chunk.order_hash in self._lost:
            raise LostRace(ErrorCode.LEASE_LOST, "the chunk was not stored: the worker lease was lost")

    def forget(self, order_hash: bytes) -> None:
        """Ends the memory of an order this process is done with."""
        self._lost.discard(order_hash)

    def _write(self) -> None:
        with self._queue_lock:
            batch, self._pending = self._pending, []
        if not batch:
            return
        hashes = {chunk.order_hash for chunk in batch}
        try:
            lost = self._ledger.chunks.add(batch, self._worker)
        except BaseException:
            # Those who waited for this write must not believe that it happened.
            self._lost |= hashes
            raise
        self._lost |= lost
        for order_hash in hashes - lost:
            self._announce(order_hash)

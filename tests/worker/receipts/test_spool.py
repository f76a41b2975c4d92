"""Chunks wait for company; the end of a job, whose buyer waits, does not."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tests.worker.support import Bench
from worker.ledger import NewChunk
from worker.receipts import ChunkSpool

_WORKER = "host-infer-1-a"
_FOR_EVER_MS = 3_600_000


def chunk(order_hash: bytes, index: int) -> NewChunk:
    return NewChunk(order_hash=order_hash, index=index, body=b"{}", token_ids=())


def test_end_of_a_job_does_not_wait_with_the_chunks_and_comes_after_them(bench: Bench) -> None:
    order_hash = bench.take()
    bench.ledger.orders.claim(order_hash, _WORKER, now_ms=bench.clock.ms, until_ms=bench.clock.ms + 10_000)
    told, ended, stored = threading.Event(), threading.Event(), []

    def announce(_hashes: Sequence[bytes]) -> None:
        told.set()

    def end() -> None:
        stored.extend(held.index for held in bench.ledger.chunks.of(order_hash))
        ended.set()

    spool = ChunkSpool(bench.ledger, _WORKER, announce, every_ms=_FOR_EVER_MS)
    spool.start()
    try:
        spool.put(chunk(order_hash, 0))
        # The first goes at once; from here on the spool waits for company.
        assert told.wait(10)
        spool.put(chunk(order_hash, 1))
        assert not ended.is_set()
        spool.then(order_hash, end)
        assert ended.wait(10)
    finally:
        spool.stop()
    assert stored == [0, 1]

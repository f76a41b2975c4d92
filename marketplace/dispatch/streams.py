"""Response chunks of running jobs, in memory: assembled in order, and replayed to whoever asks late.

One buffer a job with a cursor a reader: a slow reader costs no memory, a late one misses nothing. What a
crash loses here the node sends again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.errors import BadRequest, ErrorCode

MAX_ORDER_BYTES: Final = 32 * 1024 * 1024
MAX_CHUNKS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Chunk:
    """One response chunk of one order."""

    order_hash: str
    index: int
    body: bytes


class JobStream:
    """What happened to one job so far."""

    def __init__(self) -> None:
        self._events: list[Chunk] = []
        self._ended = False
        self._changed = asyncio.Event()

    def add(self, chunk: Chunk) -> None:
        """Tells all readers of a chunk."""
        self._events.append(chunk)
        self._wake()

    def end(self) -> None:
        """The job has ended: readers finish after the last chunk. Idempotent."""
        self._ended = True
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self._ended

    async def read(self) -> AsyncIterator[Chunk]:
        """All chunks from the first, then live ones, until the job ends."""
        at = 0
        while True:
            changed = self._changed
            while at < len(self._events):
                at += 1
                yield self._events[at - 1]
            if self._ended:
                return
            if at == len(self._events):
                await changed.wait()

    async def wait(self) -> None:
        """Until the job has ended."""
        while not self._ended:
            await self._changed.wait()

    def _wake(self) -> None:
        before, self._changed = self._changed, asyncio.Event()
        before.set()


class Assembly:
    """Chunks of one order, put in order as they come."""

    def __init__(self, order_hash: str, job_id: str, node_id: int, *, live: bool) -> None:
        self.order_hash = order_hash
        self.job_id = job_id
        self.node_id = node_id
        self.live = live
        self.chunks: list[bytes] = []
        self.first_ms: int | None = None
        self._early: dict[int, bytes] = {}
        self._bytes = 0

    def add(self, index: int, body: bytes) -> list[Chunk]:
        """Takes a chunk; gives those that are now in order. The same chunk again changes nothing.

        Raises:
            BadRequest: another body at a known index, or more than one response may hold.
        """
        known = self.chunks[index] if index < len(self.chunks) else self._early.get(index)
        if known is not None:
            if known != body:
                raise BadRequest(ErrorCode.RECEIPT_INVALID, f"chunk {index} was different before")
            return []
        if index >= MAX_CHUNKS or self._bytes + len(body) > MAX_ORDER_BYTES:
            raise BadRequest(ErrorCode.BODY_TOO_LARGE, "the response is too large")
        self._bytes += len(body)
        self._early[index] = body
        return self._in_order()

    def _in_order(self) -> list[Chunk]:
        ready: list[Chunk] = []
        while (body := self._early.pop(len(self.chunks), None)) is not None:
            ready.append(Chunk(self.order_hash, len(self.chunks), body))
            self.chunks.append(body)
        return ready


class Streams:
    """All running jobs' streams and all open orders' assemblies."""

    def __init__(self) -> None:
        self._jobs: dict[str, JobStream] = {}
        self._orders: dict[str, Assembly] = {}
        self._of_job: dict[str, set[str]] = {}

    def job(self, job_id: str) -> JobStream:
        """The stream of a job that runs; made when there is none yet."""
        return self._jobs.setdefault(job_id, JobStream())

    def bind(self, order_hash: str, job_id: str, node_id: int, *, live: bool) -> Assembly:
        """Chunks of this order belong to that job; only a live order's reach its readers. Idempotent."""
        found = self._orders.get(order_hash)
        if found is None:
            found = self._orders[order_hash] = Assembly(order_hash, job_id, node_id, live=live)
            self._of_job.setdefault(job_id, set()).add(order_hash)
        return found

    def assembly(self, order_hash: str) -> Assembly | None:
        """What has come for an order."""
        return self._orders.get(order_hash)

    def take(self, order_hash: str, index: int, body: bytes) -> None:
        """A chunk for a bound order. Raises `BadRequest` as `Assembly.add` does."""
        assembly = self._orders[order_hash]
        for chunk in assembly.add(index, body):
            if assembly.live:
                self.job(assembly.job_id).add(chunk)

    def retire(self, order_hash: str) -> None:
        """The order lapsed: what still comes is kept apart from the job's readers."""
        assembly = self._orders.get(order_hash)
        if assembly is not None:
            assembly.live = False

    def drop(self, order_hash: str) -> None:
        """Forgets an order's chunks: they are on disk, or void."""
        assembly = self._orders.pop(order_hash, None)
        if assembly is not None:
            hashes = self._of_job[assembly.job_id]
            hashes.discard(order_hash)
            if not hashes:
                del self._of_job[assembly.job_id]

    def drop_retired(self, node_id: int) -> None:
        """Forgets lapsed orders of a node whose link is gone; it sends them again when it is back."""
        gone = [h for h, a in self._orders.items() if a.node_id == node_id and not a.live]
        for order_hash in gone:
            self.drop(order_hash)

    def end_all(self) -> None:
        """Sends all readers away, as at shutdown; their jobs go on."""
        for job_id in list(self._jobs):
            self.end(job_id)

    def end(self, job_id: str) -> None:
        """Ends a job's stream; its readers keep what they hold."""
        for order_hash in self._of_job.get(job_id, ()):
            self.retire(order_hash)
        stream = self._jobs.pop(job_id, None)
        if stream is not None:
            stream.end()

"""Sends chunks and receipts of one gateway's orders from the ledger, until it confirms each receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from marketplace.protocol.sealed import Responses
from marketplace.protocol.wire import ChunkFrame, Frame, ReceiptFrame, Signed
from worker.ledger import Ledger, News
from worker.node.rules import MAX_SKEW_MS

Send = Callable[[Frame], Awaitable[None]]
_NOTHING: Final = 0


class Delivery:
    """What is on its way to one gateway. Lives as long as the daemon; links come and go."""

    def __init__(
        self, ledger: Ledger, gateway: str, now_ms: Callable[[], int], *, poll_seconds: float
    ) -> None:
        self._ledger = ledger
        self._gateway = gateway
        self._now_ms = now_ms
        self._poll_seconds = poll_seconds
        self._next: dict[bytes, int] = {}
        self._receipts_sent: set[bytes] = set()
        self._seals: dict[bytes, Responses | None] = {}
        self._dirty: set[bytes] = set()
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()

    async def restart(self) -> None:
        """A new link: everything the gateway has not confirmed is sent again, from the first chunk."""
        undelivered = await asyncio.to_thread(self._ledger.orders.undelivered, self._gateway)
        self._next = dict.fromkeys(undelivered, _NOTHING)
        self._receipts_sent.clear()
        self._touch(undelivered)

    def add(self, order_hash: bytes) -> None:
        """Starts to deliver an order, or starts over."""
        self._next[order_hash] = _NOTHING
        self._receipts_sent.discard(order_hash)
        self._touch([order_hash])

    def hint(self, order_hash: bytes) -> None:
        """Something new may be in the ledger; orders of other gateways are passed over."""
        if order_hash in self._next:
            self._touch([order_hash])

    def done(self, order_hash: bytes) -> None:
        """The gateway has the receipt."""
        self._next.pop(order_hash, None)
        self._seals.pop(order_hash, None)
        self._ended.set()
        self._receipts_sent.discard(order_hash)

    async def drained(self) -> None:
        """Returns once every receipt is confirmed."""
        while self._next:
            self._ended.clear()
            await self._ended.wait()

    @property
    def open(self) -> list[bytes]:
        """Orders whose receipt is not confirmed."""
        return list(self._next)

    async def run(self, send: Send) -> None:
        """Sends what is there, for ever; ends by cancellation or when the link breaks."""
        while True:
            try:
                async with asyncio.timeout(self._poll_seconds):
                    await self._wake.wait()
                hinted, self._dirty = self._dirty, set()
            except TimeoutError:
                # Hints may be lost, and some brokers carry none: look at everything.
                hinted = set(self._next)
            self._wake.clear()
            waiting = {
                order_hash: self._next[order_hash]
                for order_hash in hinted
                if order_hash in self._next and order_hash not in self._receipts_sent
            }
            if waiting:
                seals = await self._seals_of(waiting)
                # One look for all orders: a look each would cost more than what it finds.
                for news in await asyncio.to_thread(self._ledger.chunks.news, waiting):
                    await self._push(news, seals[news.order_hash], send)

    async def _seals_of(self, waiting: Iterable[bytes]) -> dict[bytes, Responses | None]:
        """What seals the answer of each order that came sealed: nothing of it leaves in plain."""
        seals = {order_hash: self._seals[order_hash] for order_hash in waiting if order_hash in self._seals}
        unknown = [order_hash for order_hash in waiting if order_hash not in seals]
        if unknown:
            # Meanwhile orders may be confirmed, and forgotten here: what is given does not depend on that.
            found = await asyncio.to_thread(self._ledger.seals.among, unknown)
            fresh = {order_hash: found.get(order_hash) for order_hash in unknown}
            self._seals |= fresh
            seals |= fresh
        return seals

    async def _push(self, news: News, seal: Responses | None, send: Send) -> None:
        order_hash = news.order_hash
        for index, body in news.bodies:
            if self._next.get(order_hash) != index:
                # Confirmed or started over while a frame was on its way.
                return
            sent = body if seal is None else seal.seal_chunk(index, body)
            await send(ChunkFrame(order_hash=order_hash, index=index, body=sent))
            if self._next.get(order_hash) != index:
                return
            self._next[order_hash] = index + 1
        if news.ended:
            await self._push_receipt(order_hash, seal, send)

    async def _push_receipt(self, order_hash: bytes, seal: Responses | None, send: Send) -> None:
        found = await asyncio.to_thread(self._ledger.receipts.leased, order_hash)
        # While it was read, the order may have been confirmed, or started over with chunks to send first.
        if found is None or self._next.get(order_hash) != found[0].chunks:
            return
        receipt, lease_until_ms = found
        now_ms = self._now_ms()
        # Whether it left late decides whether it is owed, so that is on disk before it leaves. A receipt that
        # leaves in time is owed either way; its caller waits, and the disk comes after.
        late = could_be_late(now_ms, lease_until_ms)
        if late:
            await asyncio.to_thread(self._ledger.receipts.sent, order_hash, now_ms=now_ms)
        self._receipts_sent.add(order_hash)
        frame = ReceiptFrame(
            order_hash=order_hash,
            receipt=Signed(message=receipt.message, signature=receipt.signature),
            annex=receipt.annex if seal is None else seal.seal_annex(receipt.annex),
            chunks=receipt.chunks,
        )
        try:
            await send(frame)
        finally:
            # Also when the link broke: the frame may have arrived.
            if not late:
                await asyncio.to_thread(self._ledger.receipts.sent, order_hash, now_ms=now_ms)

    def _touch(self, hashes: list[bytes]) -> None:
        if hashes:
            self._dirty.update(hashes)
            self._wake.set()


def could_be_late(sent_at_ms: int, lease_until_ms: int) -> bool:
    """Whether a receipt that leaves now may come after its lease; clocks may differ by the allowed skew."""
    return sent_at_ms + MAX_SKEW_MS >= lease_until_ms

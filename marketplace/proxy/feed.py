"""A call on its way, read by whoever waits for it. When they go away, it goes on to receipt and voucher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final

from marketplace.client.work import Began, Done, Piece, Told
from marketplace.openai import answers
from marketplace.protocol.errors import Broken, ErrorCode, WattError

_GRACE_SECONDS: Final = 5.0


class Feed:
    """What comes of one call, in order; made by `Feeds`."""

    def __init__(self, told: AsyncGenerator[Told, None]) -> None:
        self._queue: asyncio.Queue[Told | None] = asyncio.Queue()
        self.task = asyncio.create_task(self._pump(told))

    async def next(self) -> Told | None:
        """What came next; None at its end.

        Raises:
            WattError: it brought nothing.
        """
        item = await self._queue.get()
        if item is None:
            # Done already: this is where its error is raised.
            await self.task
        return item

    async def first(self) -> tuple[Began, Piece | Done]:
        """The job, and the first of what it gives: until then nothing is shown, and an error is one."""
        began = Began(job_id="", node_id=0, again=False)
        while (item := await self.next()) is not None:
            if not isinstance(item, Began):
                return began, item
            began = item
        raise Broken(ErrorCode.INTERNAL, "the call ended without an end")

    async def done(self) -> tuple[Began, Done]:
        """The job, and its end; the pieces are in it."""
        began, item = await self.first()
        return began, await self.end(item)

    async def end(self, item: Piece | Done) -> Done:
        """The end behind what came first. Raises as `next`."""
        async for piece in self.rest(item):
            if isinstance(piece, Done):
                return piece
        raise Broken(ErrorCode.INTERNAL, "the call ended without an end")

    async def rest(self, item: Told) -> AsyncIterator[answers.Piece | Done]:
        """What came first and all behind it, its end last; pieces know where they start. Raises as `next`."""
        start = 0
        while not isinstance(item, Done):
            if isinstance(item, Piece):
                yield answers.Piece(start=start, text=item.text, told=item.logprobs)
                start += len(item.text)
            following = await self.next()
            if following is None:
                raise Broken(ErrorCode.INTERNAL, "the call ended without an end")
            item = following
        yield item

    async def _pump(self, told: AsyncGenerator[Told, None]) -> None:
        try:
            async with aclosing(told):
                async for item in told:
                    self._queue.put_nowait(item)
        finally:
            self._queue.put_nowait(None)


class Feeds:
    """All calls under way, whoever still waits for them.

    Args:
        on_paid: hears of each call that was delivered and paid.
        on_faults: gets the bundles of receipts that did not hold, for its node may still claim for them.
    """

    def __init__(self, on_paid: Callable[[Done], None], on_faults: Callable[[Sequence[Any]], None]) -> None:
        self._on_paid, self._on_faults = on_paid, on_faults
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, told: AsyncGenerator[Told, None]) -> Feed:
        """A call that goes on by itself from here."""
        feed = Feed(self._watched(told))
        self._tasks.add(feed.task)
        feed.task.add_done_callback(self._ended)
        return feed

    async def aclose(self) -> None:
        """Waits a little for calls under way; the orders of the others are kept for the next start."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_GRACE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _watched(self, told: AsyncGenerator[Told, None]) -> AsyncGenerator[Told, None]:
        try:
            async with aclosing(told):
                async for item in told:
                    if isinstance(item, Done):
                        self._on_faults(item.faults)
                        self._on_paid(item)
                    yield item
        except WattError as error:
            faults = error.values.get("faults", ())
            if isinstance(faults, Sequence):
                self._on_faults(faults)
            raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Whoever reads the feed meets its error; where nobody does any more, it is not a defect.
        if not task.cancelled():
            task.exception()

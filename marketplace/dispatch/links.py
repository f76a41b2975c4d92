"""Which node is reachable now, and one bounded queue of frames towards each. Lives on the event loop."""

from __future__ import annotations

import asyncio
from typing import Final

from marketplace.protocol.wire import Frame

QUEUE_FRAMES: Final = 4_096


class Link:
    """Frames on their way to one node; its WebSocket task takes them out."""

    def __init__(self, node_id: int, depth: int = QUEUE_FRAMES) -> None:
        self.node_id = node_id
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(depth)
        self.closed = False

    def send(self, frame: Frame) -> bool:
        """Queues a frame; False when the link is closed or its node does not keep up (then it closes)."""
        if self.closed:
            return False
        try:
            self._frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.close()
            return False
        return True

    def close(self) -> None:
        """Ends the link: the writing task wakes up and stops. Idempotent."""
        self.closed = True
        while not self._frames.empty():
            self._frames.get_nowait()
        self._frames.put_nowait(None)

    async def next(self) -> Frame | None:
        """The next frame to write; None once closed."""
        frame = await self._frames.get()
        return None if self.closed else frame


class Links:
    """The links of all nodes: one a node, the newest wins."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}

    def attach(self, link: Link) -> None:
        """Makes this the node's link; a former one closes."""
        former = self._links.get(link.node_id)
        self._links[link.node_id] = link
        if former is not None:
            former.close()

    def detach(self, link: Link) -> bool:
        """Takes a link away; False when a newer one has replaced it already."""
        link.close()
        if self._links.get(link.node_id) is not link:
            return False
        del self._links[link.node_id]
        return True

    def send(self, node_id: int, frame: Frame) -> bool:
        """Queues a frame for a node; False when it has no link."""
        link = self._links.get(node_id)
        return link is not None and link.send(frame)

    def close_all(self) -> None:
        """Closes every link, as at shutdown."""
        for link in list(self._links.values()):
            link.close()

    def __len__(self) -> int:
        return len(self._links)

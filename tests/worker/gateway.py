"""A gateway for tests: a real WebSocket server that speaks the link's frames and keeps what it hears."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve

from marketplace.protocol import wire
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.messages import Hello
from marketplace.protocol.signing import signer_of

F = TypeVar("F", bound=wire.Frame)


class FakeGateway:
    """Answers the handshake; `confirm` decides whether receipts are confirmed as delivered."""

    def __init__(self, domain: Domain, *, confirm: bool = True, lease_ms: int = 60_000) -> None:
        self.domain = domain
        self.confirm = confirm
        self.lease_ms = lease_ms
        self.challenge = wire.Challenge(nonce=b"\x0c" * 32, chain_id=domain.chain_id, escrow=domain.escrow)
        self.heartbeat_ms = 100
        self.received: list[wire.Frame] = []
        # The same by kind: who waits for one looks at each frame that comes.
        self._of_kind: dict[type, list[Any]] = defaultdict(list)
        # Seconds of the monotonic clock, for each frame received.
        self.heard_at: list[float] = []
        self.links = 0
        self.hellos: list[tuple[Hello, str]] = []
        self._connection: ServerConnection | None = None
        self._server: Server | None = None
        self._changed = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/link"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeGateway]:
        await self.open()
        try:
            yield self
        finally:
            await self.close()

    async def open(self) -> None:
        self._server = await serve(self._talk, "127.0.0.1", self.port, max_size=wire.MAX_FRAME_BYTES)
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def send(self, frame: wire.Frame) -> None:
        await self.until(lambda: self._connection is not None)
        assert self._connection is not None
        await self._connection.send(wire.encode_frame(frame))

    async def drop(self) -> None:
        """Breaks the link as a crash would."""
        assert self._connection is not None
        self._connection.transport.abort()
        await self.until(lambda: self._connection is None)

    def of(self, kind: type[F]) -> list[F]:
        return list(self._of_kind[kind])

    async def wait_for(self, kind: type[F], number: int = 1, timeout_seconds: float = 20) -> list[F]:
        await self.until(lambda: len(self._of_kind[kind]) >= number, timeout_seconds)
        return self.of(kind)

    async def until(self, true: Callable[[], Any], timeout_seconds: float = 20) -> None:
        async with asyncio.timeout(timeout_seconds):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def _talk(self, connection: ServerConnection) -> None:
        await connection.send(wire.encode_frame(self.challenge))
        hello = wire.parse_from_node(await connection.recv())
        if not isinstance(hello, wire.HelloFrame):
            self._hear(hello)
            return
        message = Hello.decode(hello.hello.message)
        self.hellos.append((message, signer_of(message, self.domain, hello.hello.signature)))
        welcome = wire.Welcome(heartbeat_ms=self.heartbeat_ms, lease_ms=self.lease_ms)
        await connection.send(wire.encode_frame(welcome))
        self._connection = connection
        self.links += 1
        self._changed.set()
        try:
            async for text in connection:
                frame = wire.parse_from_node(text)
                self._hear(frame)
                if isinstance(frame, wire.ReceiptFrame) and self.confirm:
                    await self.send(wire.Delivered(order_hash=frame.order_hash))
        finally:
            self._connection = None
            self._changed.set()

    def _hear(self, frame: wire.Frame) -> None:
        self.received.append(frame)
        self._of_kind[type(frame)].append(frame)
        self.heard_at.append(time.monotonic())
        self._changed.set()

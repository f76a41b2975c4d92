"""All that passes a gateway, on tape: the frames of its nodes, and its buyers' HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from marketplace.protocol.wire import MAX_FRAME_BYTES

HOST: Final = "127.0.0.1"
_PIECE: Final = 65_536


class Wiretap:
    """Two relays before one gateway, in a thread of their own; they record while `recording`.

    Attributes:
        link_url: where nodes find their gateway.
        http_url: where buyers do.
    """

    def __init__(self, gateway_port: int) -> None:
        self._gateway_port = gateway_port
        self.recording = False
        self.frames: list[bytes] = []
        self.http: list[bytes] = []
        self.link_url = self.http_url = ""
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="wiretap", daemon=True)

    def start(self) -> Self:
        """Returns once both relays listen."""
        self._thread.start()
        assert self._ready.wait(10), "the wiretap did not start"
        return self

    def stop(self) -> None:
        """Hangs up on everybody."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def cut(self) -> tuple[bytes, bytes]:
        """What was recorded since the last cut: frames, and HTTP as it was sent."""
        frames, self.frames = self.frames, []
        http, self.http = self.http, []
        return b"\n".join(frames), b"".join(http)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        links = await serve(self._link, HOST, 0, max_size=MAX_FRAME_BYTES)
        buyers = await asyncio.start_server(self._buyer, HOST, 0)
        self.link_url = f"ws://{HOST}:{_port(links)}/v1/link"
        self.http_url = f"http://{HOST}:{_port(buyers)}"
        self._ready.set()
        await self._stop.wait()
        links.close()
        buyers.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _link(self, node: ServerConnection) -> None:
        url = f"ws://{HOST}:{self._gateway_port}/v1/link"
        # While the gateway is away its nodes hear so, and come again.
        with contextlib.suppress(OSError, ConnectionClosed):
            async with connect(url, max_size=MAX_FRAME_BYTES, proxy=None) as gateway:
                await _until_one_ends(self._passed(node, gateway), self._passed(gateway, node))

    async def _passed(
        self, source: ServerConnection | ClientConnection, to: ServerConnection | ClientConnection
    ) -> None:
        async for text in source:
            self._keep(self.frames, text.encode() if isinstance(text, str) else text)
            await to.send(text)

    async def _buyer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, questions = await asyncio.open_connection(HOST, self._gateway_port)
            try:
                await _until_one_ends(self._piped(reader, questions), self._piped(answers, writer))
            finally:
                questions.transport.abort()
        except OSError:
            writer.transport.abort()
        finally:
            writer.close()

    async def _piped(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while piece := await source.read(_PIECE):
            self._keep(self.http, piece)
            to.write(piece)
            await to.drain()

    def _keep(self, tape: list[bytes], piece: bytes) -> None:
        if self.recording:
            tape.append(piece)


async def _until_one_ends(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _port(server: Any) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])

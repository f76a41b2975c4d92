"""An HTTP relay before a gateway that loses answers on purpose: what a bad network does to paid calls."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import urlsplit

PAID: Final = ("/v1/chat/completions", "/v1/embeddings", "/v1/jobs")
DUPLICATES: Final = 100
_JOB: Final = re.compile(rb"\r\nx-job-id: (job_[a-z2-7]+)\r\n", re.IGNORECASE)
_UNAVAILABLE: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n"
    b"connection: close\r\n\r\nbusy"
)
_PATIENCE_SECONDS: Final = 90
_PIECE: Final = 16_384


@dataclass(frozen=True, slots=True)
class Request:
    """One request as bytes, its connection to be closed after it."""

    method: str
    path: str
    data: bytes


# What a fault does with a request: it answers the client, or breaks its connection.
Fault = Callable[["Relay", Request, asyncio.StreamWriter], Awaitable[None]]


class Relay:
    """Passes requests on; the next paid ones meet the armed fault. Runs in a thread of its own."""

    def __init__(self, gateway_url: str) -> None:
        place = urlsplit(gateway_url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 80
        self._fault: Fault | None = None
        self._left = 0
        self.met = 0
        # Why an armed fault could not be made: then the cell shows nothing.
        self.unmade = ""
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10), "the relay did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def arm(self, fault: Fault, times: int) -> None:
        """The next so many paid requests meet this fault."""
        self._fault, self._left, self.met = fault, times, 0
        self.unmade = ""

    async def pieces(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The gateway's answer as it comes; waits for a gateway that is just starting."""
        reader, writer = await self._connect()
        try:
            writer.write(request.data)
            await writer.drain()
            while piece := await reader.read(_PIECE):
                yield piece
        finally:
            writer.transport.abort()

    async def fetch(self, request: Request) -> bytes:
        """The gateway's whole answer."""
        return b"".join([piece async for piece in self.pieces(request)])

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader)
            if self._left and request.method == "POST" and request.path in PAID and self._fault is not None:
                self._left -= 1
                self.met += 1
                await self._fault(self, request, writer)
            else:
                await passed(self, request, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            writer.transport.abort()
        except AssertionError as error:
            self.unmade = str(error)
            writer.transport.abort()
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in range(_PATIENCE_SECONDS * 5):
            try:
                return await asyncio.open_connection(self._host, self._port)
            except OSError:
                await asyncio.sleep(0.2)
        raise ConnectionRefusedError("the gateway never came back")


async def passed(relay: Relay, request: Request, writer: asyncio.StreamWriter) -> None:
    """No fault."""
    async for piece in relay.pieces(request):
        writer.write(piece)
        await writer.drain()


async def unavailable(relay: Relay, request: Request, writer: asyncio.StreamWriter) -> None:
    """The work is done; the client is told 503."""
    await relay.fetch(request)
    writer.write(_UNAVAILABLE)


def cut(after_bytes: int) -> Fault:
    """The connection breaks so many bytes into the answer's body."""

    async def fault(relay: Relay, request: Request, writer: asyncio.StreamWriter) -> None:
        seen = b""
        async with aclosing(relay.pieces(request)) as pieces:
            async for piece in pieces:
                seen += piece
                end = seen.find(b"\r\n\r\n") + 4
                if end >= 4 and len(seen) >= end + after_bytes:
                    writer.write(seen[: end + after_bytes])
                    await writer.drain()
                    break
        writer.transport.abort()

    return fault


def killed(kill: Callable[[str], None], *, answered: bool) -> Fault:
    """`kill` is told the job's id ("" where no header named it) and ends the gateway; no answer arrives.

    Once the gateway has `answered`, or else while it works.
    """

    async def fault(relay: Relay, request: Request, writer: asyncio.StreamWriter) -> None:
        answer = asyncio.ensure_future(relay.fetch(request))
        told = await answer if answered else b""
        found = _JOB.search(told)
        await asyncio.to_thread(kill, found[1].decode() if found else "")
        await asyncio.wait([answer])
        writer.transport.abort()

    return fault


async def duplicated(relay: Relay, request: Request, writer: asyncio.StreamWriter) -> None:
    """The gateway gets the same bytes a hundred times at once; the client gets one of the answers."""
    answers = await asyncio.gather(*(relay.fetch(request) for _ in range(DUPLICATES)))
    writer.write(answers[-1])


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    method, path, _ = first.split(b" ", 2)
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    length = next(
        (int(line.split(b":")[1]) for line in kept if line.lower().startswith(b"content-length:")), 0
    )
    body = await reader.readexactly(length)
    data = b"\r\n".join([first, *kept, b"connection: close", b"", body])
    return Request(method.decode(), path.decode().partition("?")[0], data)

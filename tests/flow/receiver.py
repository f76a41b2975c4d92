"""A real HTTP server on loopback that takes webhooks, and answers as a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Taken:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Receiver:
    """What arrived, and what is answered: statuses in turn, then 204; None never answers."""

    url: str = ""
    answers: list[int | None] = field(default_factory=list)
    extra: bytes = b""
    taken: list[Taken] = field(default_factory=list)
    serving: set[asyncio.Task[None] | None] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        # Whoever leaves a long answer leaves most of it in the buffer.
        writer.transport.abort() if self.extra else writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rows = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (row.partition(": ") for row in rows)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.taken.append(Taken(line=line, headers=headers, body=body))
        status = self.answers.pop(0) if self.answers else 204
        if status is None:
            await reader.read()
            return
        length = b"" if self.extra else b"content-length: 0\r\n"
        writer.write(b"HTTP/1.1 %d Said\r\n%sconnection: close\r\n" % (status, length))
        writer.write(b"location: http://127.0.0.1:1/elsewhere\r\n\r\n" + self.extra)
        await writer.drain()


@contextlib.asynccontextmanager
async def receiver(
    *answers: int | None, extra: bytes = b"", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    made = Receiver(answers=list(answers), extra=extra)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    made.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks?a=b"
    async with server:
        yield made
    await asyncio.gather(*filter(None, made.serving), return_exceptions=True)

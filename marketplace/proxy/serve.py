"""The proxy as a process: a loopback port, a client, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import Final

import uvicorn

from marketplace.client.aio import AsyncWattline
from marketplace.openai.answers import KEEP_ALIVE_SECONDS
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.proxy.app import create_app
from marketplace.proxy.calls import Proxy

HOST: Final = "127.0.0.1"
_SHUTDOWN_SECONDS: Final = 5


async def serve(
    port: int,
    open_client: Callable[[], Awaitable[AsyncWattline]],
    make_proxy: Callable[[AsyncWattline], Awaitable[Proxy]],
    *,
    token: str | None,
    ready: Callable[[Proxy, str], None],
) -> None:
    """Serves until SIGTERM or Ctrl-C; `ready` hears the URL, once it is open.

    Raises:
        BadRequest: somebody else has the port.
        WattError: the client cannot be opened.
    """
    with closing(_listen(port)) as listening:
        async with await open_client() as client:
            proxy = await make_proxy(client)
            proxy.recover()
            config = uvicorn.Config(
                create_app(proxy, token=token),
                log_level="error",
                access_log=False,
                lifespan="off",
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            )
            # The port is open already: who connects from here on waits for the first turn of the loop.
            ready(proxy, f"http://{HOST}:{listening.getsockname()[1]}/v1")
            try:
                await _Server(config).serve([listening])
            finally:
                await proxy.aclose()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"port {port} of {HOST} cannot be opened ({error.strerror})",
            hint=f"Name another: watt proxy --port {port + 1 if port < 65_535 else 8403}",
        ) from error


class _Server(uvicorn.Server):
    """Ends in order on SIGTERM and Ctrl-C."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Asks to stop; uvicorn itself would raise the signal again, and end the client half-way."""
        loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

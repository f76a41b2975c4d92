"""Sends one message to a stranger's address, so that it cannot be used to reach into our own network.

The name is resolved here, every address it has is checked, and the connection goes to the checked address: a
name that means another address a moment later changes nothing. No proxy, no redirect, a bound on time and on
what is read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Final

import httpx2

from marketplace.hooks import rules
from marketplace.hooks.rules import Target
from marketplace.hooks.step import Answer
from marketplace.protocol.errors import BadRequest, ErrorCode

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_MOST_READ: Final = 16_384
_USER_AGENT: Final = "wattline-webhooks/1"
# A look-up cannot be ended: names whose servers never answer hold up each other, and no reader of the store.
_NAMES: Final = ThreadPoolExecutor(8, thread_name_prefix="names")


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a name, as the system knows it. Raises `OSError`."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_NAMES, ask)
    return [str(item[4][0]) for item in found]


class Post:
    """Sends messages; holds no connection between two.

    Args:
        allow_loopback: whether receivers on this machine are allowed, for local development.
        seconds: for one sending, from the name to the end of the answer.
        trust: whose certificates count; None for those that the system trusts.
    """

    def __init__(
        self,
        *,
        allow_loopback: bool,
        seconds: float,
        resolve: Resolve = resolve,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_loopback, self._seconds, self._resolve = allow_loopback, seconds, resolve
        self._trust = trust

    async def check(self, url: str) -> None:
        """Whether something could be sent there now. Raises `BadRequest`."""
        target = rules.target(url)
        try:
            async with asyncio.timeout(self._seconds):
                await self._address(target)
        except (OSError, UnicodeError) as error:
            detail = f"{target.host} does not resolve"
            raise BadRequest(ErrorCode.WEBHOOK_REFUSED, detail, param="url") from error

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Sends one message; whatever goes wrong is in the answer."""
        try:
            async with asyncio.timeout(self._seconds):
                return Answer(status=await self._exchange(rules.target(url), headers, body))
        except TimeoutError:
            return Answer(problem=f"no answer in {self._seconds:g} s")
        except BadRequest as refused:
            return Answer(problem=refused.detail)
        except (OSError, UnicodeError):
            return Answer(problem="the name does not resolve")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return Answer(problem=f"no connection held ({type(error).__name__})")

    async def _exchange(self, target: Target, headers: Mapping[str, str], body: bytes) -> int:
        address = await self._address(target)
        host = f"[{address}]" if ":" in address else address
        named = {"host": target.authority, "user-agent": _USER_AGENT, **headers}
        # The certificate must be the name's, though the connection is to an address.
        extensions, trust = {"sni_hostname": target.host}, self._trust or _system()
        async with (
            httpx2.AsyncClient(
                trust_env=False, follow_redirects=False, timeout=self._seconds, verify=trust
            ) as http,
            http.stream(
                "POST",
                f"{target.scheme}://{host}:{target.port}{target.path}",
                content=body,
                headers=named,
                extensions=extensions,
            ) as response,
        ):
            await _drain(response)
            return response.status_code

    async def _address(self, target: Target) -> str:
        found = await self._resolve(target.host, target.port)
        return rules.check_addresses(found, allow_loopback=self._allow_loopback)


@cache
def _system() -> ssl.SSLContext:
    """Certificates that the system trusts, read once: reading them takes ten milliseconds."""
    return httpx2.create_ssl_context(trust_env=False)


async def _drain(response: httpx2.Response) -> None:
    """Reads a short answer to its end; a long one is left."""
    read = 0
    async for part in response.aiter_raw():
        read += len(part)
        if read > _MOST_READ:
            return

"""The gateway's HTTP API: JSON calls, server-sent events, problems as exceptions.

Everything sent here may be sent twice: reads, quotes and signed messages are idempotent, so a dropped
connection is tried again. Nothing else is retried: who pays decides what happens next.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from marketplace.client.problems import GatewayTrouble, problem_of
from marketplace.client.views import Surroundings

_PAUSES_SECONDS: Final = (0.2, 0.8)
_MOST_PORT: Final = 65_535
_TIMEOUT: Final = httpx2.Timeout(30, read=150)


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its name and JSON body."""

    name: str
    data: dict[str, Any]


class Gateway:
    """One gateway over one connection pool.

    Args:
        transport: other than the network's, for tests.
    """

    def __init__(
        self,
        url: str,
        around: Surroundings,
        *,
        api_key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._around = around
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            self._http = httpx2.AsyncClient(
                base_url=self.url, transport=transport, timeout=_TIMEOUT, headers=headers
            )
            fits = (self._http.base_url.port or 0) <= _MOST_PORT
        except (httpx2.InvalidURL, ValueError):
            fits = False
        if not fits:
            raise GatewayTrouble(f"{self.url!r} is no address of a gateway.")

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def get(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """JSON object of a GET.

        Raises:
            GatewayProblem: the gateway said no.
            GatewayTrouble: it does not answer.
        """
        return await self._call("GET", path, params=params, headers=headers)

    async def post(
        self, path: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """JSON object of a POST; raises as `get`."""
        return await self._call("POST", path, json=body, headers=headers)

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """JSON object of any call, empty where the answer is; raises as `get`."""
        return await self._call(method, path, headers=headers, **({} if body is None else {"json": body}))

    async def delete(self, path: str, *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """JSON object of a DELETE; raises as `get`."""
        return await self._call("DELETE", path, headers=headers)

    async def download(
        self, path: str, *, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The body of a GET, piece by piece; raises as `get`, also where it ends too early."""
        try:
            async with self._http.stream("GET", path, params=params, headers=headers) as response:
                if response.is_error:
                    await response.aread()
                    raise _problem(response)
                async for piece in response.aiter_bytes():
                    yield piece
        except httpx2.TransportError as error:
            raise self._trouble(error) from error

    async def events(
        self, path: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Event, None]:
        """Events of a POST that streams; the first is `job` where the gateway names one.

        Raises:
            GatewayProblem: refused before the first event.
            GatewayTrouble: the connection did not hold; the same POST attaches again.
        """
        wanted = {"accept": "text/event-stream", **(headers or {})}
        try:
            async with self._http.stream("POST", path, json=body, headers=wanted) as response:
                if response.is_error:
                    await response.aread()
                    raise _problem(response)
                if job_id := response.headers.get("x-job-id"):
                    yield Event("job", {"job_id": job_id})
                async for event in httpx2.EventSource(response):
                    if event.data and event.data != "[DONE]":
                        yield Event(event.event or "message", _object(event.data))
        except (httpx2.TransportError, httpx2.SSEError) as error:
            raise self._trouble(error) from error

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        for pause in (*_PAUSES_SECONDS, None):
            try:
                response = await self._http.request(method, path, **options)
            except httpx2.TransportError as error:
                if pause is None:
                    raise self._trouble(error) from error
                await self._around.sleep(pause)
                continue
            if response.is_error:
                raise _problem(response)
            return _object(response.text) if response.content else {}
        raise AssertionError("unreachable: the last pause is None")

    def _trouble(self, error: Exception) -> GatewayTrouble:
        what = str(error) or type(error).__name__
        return GatewayTrouble(f"The gateway at {self.url} does not answer ({what}).", url=self.url)


def _problem(response: httpx2.Response) -> Exception:
    try:
        body = json.loads(response.text)
    except ValueError:
        body = {"detail": f"the gateway answered {response.status_code} without saying why"}
    return problem_of(body, response.status_code, response.headers.get("x-request-id", ""))


def _object(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise GatewayTrouble(f"The gateway sent no JSON: {text[:60]!r}") from error
    return data if isinstance(data, dict) else {"data": data}

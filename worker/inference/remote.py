"""`chat` by another process: an OpenAI-compatible server (vLLM, SGLang) that runs the model's files.

The node counts tokens with the model's own tokenizer, bills what was delivered, and streams what the server
streams. It sees no hidden states, so there is no trace to check, and measures neither time nor energy: the
profile says so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import ExitStack, aclosing, suppress
from typing import Any, Final

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal

from marketplace.protocol.annex import Profile
from marketplace.protocol.errors import WattError
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import ChatPayload, Payload
from worker.inference.engine import (
    Chunk,
    Emit,
    EngineJob,
    EngineSettings,
    Outcome,
    Running,
    Sink,
    Upstream,
)
from worker.inference.errors import EngineFailed, ModelNotServed, NoLogprobs, UpstreamRefused
from worker.inference.host import waited
from worker.inference.prompt import ChatTokenizer, Prompt
from worker.inference.relay import Delta, Relay, delta_of, request_of
from worker.models import ModelDir, Task

# Raised when a change of code changes what is asked of a server or made of its answer.
_VERSION: Final = 1
_PROBE_SECONDS: Final = 10
_UNBOUNDED: Final = 1 << 40
# The request itself is at fault; another attempt would end alike.
_REFUSALS: Final = frozenset({400, 413, 422})


class Stopped(Exception):
    """The buyer wants no more of an answer."""


class Call:
    """One job at a server; a `Running`."""

    def __init__(self, job: EngineJob, sink: Sink, portal: BlockingPortal) -> None:
        self.job = job
        self.task: Future[None] | None = None
        self._sink, self._portal = sink, portal
        self._stopping, self._ended = asyncio.Event(), False

    def put(self, event: Chunk | Outcome | Exception) -> None:
        """Passes on what happened, up to an outcome or an error."""
        if not self._ended:
            self._ended = not isinstance(event, Chunk)
            self._sink(event)

    def stop(self) -> None:
        """Ends the answer where it stands. Idempotent."""
        with suppress(RuntimeError):  # the engine was closed, and said so
            self._portal.start_task_soon(self._stop)

    def drop(self) -> None:
        """Ends the connection, and with it the server's work. Idempotent."""
        self._ended = True
        if self.task is not None:
            self.task.cancel()

    async def unless_stopped(self, awaited: Awaitable[Delta | None]) -> Delta | None:
        """What is awaited. Raises `Stopped` when the buyer's wish comes first."""
        stop = asyncio.ensure_future(self._stopping.wait())
        wanted = asyncio.ensure_future(awaited)
        try:
            await asyncio.wait({stop, wanted}, return_when=asyncio.FIRST_COMPLETED)
            if not wanted.done():
                raise Stopped
            return wanted.result()
        finally:
            stop.cancel()
            if wanted.cancel():
                await asyncio.wait({wanted})

    async def _stop(self) -> None:
        self._stopping.set()


class RemoteEngine:
    """Hands jobs to a server and brings its answers back; an `Engine`."""

    def __init__(
        self, model: ModelDir, settings: EngineSettings, upstream: Upstream, *, now_ms: Callable[[], int]
    ) -> None:
        if model.task != Task.CHAT:
            raise EngineFailed(f"a server can only do chat, {model.path.name} is offered for {model.task}")
        self._model = model
        self._model_id = to_hex(model.model_id)
        self._settings = settings
        self._upstream = upstream
        self._now_ms = now_ms
        self._running: set[Future[None]] = set()
        self._portal: BlockingPortal | None = None
        self._server = "unknown"
        self._name = upstream.model
        # Certificates, read once: it takes as long as a short answer.
        self._trust = httpx2.create_ssl_context(trust_env=False)

    @property
    def profile(self) -> Profile:
        """Who answered; nothing about it is proven."""
        engine = f"external-openai-{_VERSION}/{self._server}/no-trace"
        return Profile(engine=engine, torch="none", dtype="unknown", device="unknown")

    @property
    def alive(self) -> bool:
        """Whether jobs can be handed over; each finds out by itself whether the server answers."""
        return self._portal is not None

    def load(self) -> None:
        """Asks the server for its models. Raises `EngineFailed`."""
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal())
            listed = portal.call(self._probe)
            self._tokenizer = ChatTokenizer(self._model.path)
            self._tokenizer.limit(self._learn(listed))
            self._open = stack.pop_all()
        self._portal = portal

    def units_in(self, payload: Payload) -> int:
        """Prompt tokens by the model's own tokenizer and template. Raises `BadRequest`."""
        return len(self._prompt(payload).tokens)

    def run(self, job: EngineJob, emit: Emit) -> Outcome:
        """Streams the server's answer, handing chunks to `emit` on this thread."""
        return waited(self.submit, job, emit)

    def submit(self, job: EngineJob, sink: Sink) -> Running:
        """Streams the server's answer to `sink`, on the thread of the connections."""
        if job.payload.model != self._model_id:
            raise ModelNotServed(job.payload.model)
        portal = self._portal
        if portal is None:
            raise EngineFailed("it is not loaded")
        call = Call(job, sink, portal)
        prompt = self._prompt(job.payload)
        try:
            call.task = portal.start_task_soon(self._serve, call, prompt)
        except RuntimeError as error:
            raise EngineFailed("it was closed") from error
        self._running.add(call.task)
        call.task.add_done_callback(self._running.discard)
        return call

    def close(self) -> None:
        """Ends all connections; jobs still running fail. Idempotent."""
        if self._portal is None:
            return
        self._portal = None
        for task in list(self._running):
            task.cancel()
        self._open.close()

    def _prompt(self, payload: Payload) -> Prompt:
        if isinstance(payload, ChatPayload) and payload.logprobs is not None:
            raise NoLogprobs
        return self._tokenizer.prompt(payload)

    async def _serve(self, call: Call, prompt: Prompt) -> None:
        try:
            call.put(await self._answer(call, prompt))
        except WattError as error:
            call.put(error)
        except (httpx2.TransportError, httpx2.StreamError, httpx2.SSEError, httpx2.DecodingError) as error:
            call.put(EngineFailed(f"the connection to the server broke: {type(error).__name__}"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            call.put(EngineFailed(f"the server sent what cannot be read: {type(error).__name__}"))
        finally:
            # Whatever ended this, nobody is left waiting; behind an outcome it is not passed on.
            call.put(EngineFailed("it was closed"))

    async def _answer(self, call: Call, prompt: Prompt) -> Outcome:
        job = call.job
        relay = Relay(
            job, prompt, self._tokenizer, settings=self._settings, send=call.put, now_ms=self._now_ms
        )
        if relay.ended:
            return relay.outcome()
        body = request_of(job, prompt, self._name)
        async with self._client() as http, aclosing(self._deltas(http, body)) as deltas:
            while not relay.ended:
                left_ms = job.stop_at_ms - self._now_ms()
                quiet_ms = min(left_ms, self._upstream.stall_ms)
                try:
                    async with asyncio.timeout(max(0, quiet_ms) / 1000):
                        delta = await call.unless_stopped(anext(deltas, None))
                except TimeoutError:
                    if quiet_ms < left_ms:
                        raise EngineFailed(f"the server was silent for {quiet_ms} ms") from None
                    relay.stop()
                    break
                except Stopped:
                    relay.cancel()
                    break
                relay.take(delta)
        return relay.outcome()

    async def _deltas(self, http: httpx2.AsyncClient, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        async with http.stream("POST", "chat/completions", json=body) as response:
            if response.status_code in _REFUSALS:
                raise UpstreamRefused(response.status_code)
            if response.status_code != 200:
                raise EngineFailed(f"the server answered {response.status_code}")
            async for event in httpx2.EventSource(response):
                if event.data == "[DONE]":
                    yield Delta(done=True)
                    return
                if event.data:
                    yield delta_of(event.data)

    async def _probe(self) -> dict[str, Any]:
        """The server's entry of the model."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS), self._client() as http:
                response = await http.get("models")
                rows = response.raise_for_status().json()["data"]
                named = [row for row in rows if self._upstream.model in ("", row["id"])]
                return dict(named[0])
        except (httpx2.HTTPError, TimeoutError, ValueError, LookupError, TypeError) as error:
            asked = self._upstream.model or "any model"
            detail = f"the server at {self._upstream.url} does not offer {asked} ({type(error).__name__})"
            raise EngineFailed(detail) from error

    def _learn(self, listed: dict[str, Any]) -> int:
        """Name and kind of the server's model; its longest context."""
        self._name = str(listed["id"])
        self._server = re.sub("[^a-z0-9.-]", "", str(listed.get("owned_by", "")).lower())[:32] or "unknown"
        length = listed.get("max_model_len")
        return length if isinstance(length, int) else _UNBOUNDED

    def _client(self) -> httpx2.AsyncClient:
        upstream = self._upstream
        headers = {"authorization": f"Bearer {upstream.key}"} if upstream.key else {}
        base_url = upstream.url.rstrip("/") + "/"
        # Silence is timed by the job; proxies of the environment are not for a server beside us.
        return httpx2.AsyncClient(
            base_url=base_url, headers=headers, timeout=None, trust_env=False, verify=self._trust
        )

"""A small OpenAI-compatible HTTP server whose streams the test writes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

WORDS = ("The ", "sky ", "is ", "blue", ".")


@dataclass
class Server:
    """What the server answers; `script` are the lines of one stream, None where it hangs."""

    script: list[str | None] = field(default_factory=list)
    status: int = 200
    breaks: bool = False
    models: list[dict[str, Any]] = field(
        default_factory=lambda: [{"id": "big", "owned_by": "vLLM", "max_model_len": 200}, {"id": "other"}]
    )
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def whole(self) -> list[str | None]:
        return whole(*WORDS)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/v1/models")
        async def models() -> Any:
            return JSONResponse({"object": "list", "data": self.models}, self.status)

        @app.post("/v1/chat/completions")
        async def completions(request: Request) -> Response:
            self.requests.append(await request.json())
            self.keys.append(request.headers.get("authorization"))
            if self.status != 200:
                return JSONResponse({"error": {"message": "no"}}, self.status)
            return StreamingResponse(self.lines(), media_type="text/event-stream")

        return app

    async def lines(self) -> AsyncIterator[str]:
        try:
            for line in self.script:
                if line is None:
                    await asyncio.Event().wait()
                yield f"data: {line}\n\n"
            if self.breaks:
                raise ConnectionError
        finally:
            # Also when the client hung up: the framework cancels this then.
            self.gone.set()


def event(text: str | None = None, finish: str | None = None, **more: Any) -> str:
    delta = {} if text is None else {"content": text}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def usage(units_in: Any, units_out: Any) -> str:
    return json.dumps({"choices": [], "usage": {"prompt_tokens": units_in, "completion_tokens": units_out}})


def whole(*words: str, finish: str = "stop", counted: tuple[Any, Any] = (9999, 9999)) -> list[str | None]:
    first = json.dumps({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    return [first, *map(event, words), event(finish=finish), usage(*counted), "[DONE]"]


class Quiet(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    config = uvicorn.Config(server.app(), host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    http = Quiet(config)
    thread = threading.Thread(target=http.run)
    thread.start()
    until = time.monotonic() + 30
    while not http.started:
        assert time.monotonic() < until
        time.sleep(0.01)
    server.url = f"http://127.0.0.1:{http.servers[0].sockets[0].getsockname()[1]}/v1"
    yield server
    http.should_exit = http.force_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture
def server(running: Server) -> Server:
    fresh = Server(script=whole(*WORDS))
    for name in ("script", "status", "breaks", "models", "requests", "keys", "gone"):
        setattr(running, name, getattr(fresh, name))
    return running

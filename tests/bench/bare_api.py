"""The bare side's API: one route, one Celery task a call, and a row a call as durable as ours.

At its best: uvicorn with uvloop, a raw driver on one writer thread, the answer by publish and subscribe with
one listener for all calls, without a result backend. The row is on disk before the task is sent, and holds
the answer before the caller gets it, in the journal mode of decision 33: what was accepted is known
although everything is killed, and what was answered can be asked for again. It keeps nobody's money, checks
no key and signs nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pysqlite3
import redis.asyncio
from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

from tests.bench.bare_names import BROKER, CHANNEL, DATABASE, QUEUE, TASK
from worker.node.queue import configure

_BROKER_URL = os.environ[BROKER]


class Turn(BaseModel):
    """One message of a conversation."""

    role: str
    content: str


class Call(BaseModel):
    """Body of a chat call, as far as it is used here."""

    model: str
    messages: list[Turn]
    max_tokens: int
    temperature: float


class Desk:
    """Rows, tasks and waiting callers."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._writer = ThreadPoolExecutor(1)
        self._celery = Celery("bare", broker=_BROKER_URL, set_as_current=False)
        configure(self._celery)
        self._rows = pysqlite3.connect(os.environ[DATABASE], isolation_level=None, check_same_thread=False)
        self._rows.execute("PRAGMA journal_mode=WAL")
        self._rows.execute("PRAGMA synchronous=FULL")
        self._rows.execute("CREATE TABLE IF NOT EXISTS call (id TEXT PRIMARY KEY, body TEXT, answer TEXT)")

    async def call(self, body: dict[str, Any]) -> dict[str, Any]:
        """Stores, sends, waits, stores."""
        loop, call_id = asyncio.get_running_loop(), uuid.uuid4().hex
        found = self._waiting[call_id] = loop.create_future()
        await loop.run_in_executor(self._writer, self._begin, call_id, body)
        answer = await found
        await loop.run_in_executor(self._writer, self._end, call_id, answer)
        return answer

    async def listen(self) -> None:
        """Hands answers to those who wait for them, for ever."""
        async with redis.asyncio.Redis.from_url(_BROKER_URL) as client, client.pubsub() as subscription:
            await subscription.subscribe(CHANNEL)
            async for message in subscription.listen():
                if message["type"] == "message":
                    answer = json.loads(message["data"])
                    self._waiting.pop(answer["id"]).set_result(answer)

    def _begin(self, call_id: str, body: dict[str, Any]) -> None:
        self._rows.execute("INSERT INTO call (id, body) VALUES (?, ?)", (call_id, json.dumps(body)))
        self._celery.send_task(TASK, args=[call_id, body], queue=QUEUE)

    def _end(self, call_id: str, answer: dict[str, Any]) -> None:
        self._rows.execute("UPDATE call SET answer = ? WHERE id = ?", (json.dumps(answer), call_id))


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    app.state.desk = Desk()
    listening = asyncio.create_task(app.state.desk.listen())
    yield
    listening.cancel()


app = FastAPI(lifespan=_running)


@app.get("/ready")
async def ready() -> dict[str, bool]:
    """Whether it answers."""
    return {"ok": True}


@app.post("/v1/chat/completions")
async def chat(call: Call) -> dict[str, Any]:
    """One chat completion in OpenAI's shape."""
    found = await app.state.desk.call(call.model_dump())
    message = {"role": "assistant", "content": found["text"]}
    tokens = {"prompt_tokens": found["units_in"], "completion_tokens": found["units_out"]}
    return {
        "id": found["id"],
        "object": "chat.completion",
        "created": int(time.time()),
        "model": call.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": tokens | {"total_tokens": found["units_in"] + found["units_out"]},
    }

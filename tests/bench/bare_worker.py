"""The bare side's Celery worker: the same engine and model, no ledger, no signature, no spool.

celery -A tests.bench.bare_worker worker --pool threads
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Final

import redis
from celery import Celery, signals

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Answer, ChatMessage, ChatPayload
from tests.bench.bare_names import BROKER, CHANNEL, MODEL, READY, TASK
from worker.inference.engine import EngineJob, EngineSettings
from worker.inference.generate import ChatEngine
from worker.metering import DeclaredSource
from worker.models import from_directory
from worker.node.queue import configure

_FAR: Final = 1 << 60

app = Celery("bare", broker=os.environ[BROKER], set_as_current=False)
configure(app)
broker = redis.Redis.from_url(os.environ[BROKER])


class Engine:
    """The model, loaded when the worker starts."""

    def __init__(self, folder: Path) -> None:
        found = from_directory(folder)
        self.model_id = to_hex(found.model_id)
        settings = EngineSettings(threads=1, slots=8)
        self.chat = ChatEngine(
            found, settings, energy=DeclaredSource(0), now_ms=lambda: time.time_ns() // 1_000_000
        )

    def answer(self, call_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Text and units of a call."""
        turns = tuple(ChatMessage(**turn) for turn in body["messages"])
        payload = ChatPayload(
            model=self.model_id, messages=turns, max_tokens=body["max_tokens"], temperature_milli=0
        )
        whole = Answer()
        job = EngineJob(id=call_id, payload=payload, seed=0, stop_at_ms=_FAR)
        outcome = self.chat.run(job, lambda chunk: whole.add(chunk.body))
        return {"text": whole.text, "units_in": outcome.units_in, "units_out": outcome.units_out}


engine = Engine(Path(os.environ[MODEL]))


@signals.worker_init.connect
def load(**_: object) -> None:
    """Before the first task."""
    engine.chat.load()


@signals.worker_ready.connect
def ready(**_: object) -> None:
    """Tells whoever waits."""
    broker.set(READY, 1)


@app.task(name=TASK)
def answer(call_id: str, body: dict[str, Any]) -> None:
    """Does the work and tells the API, which listens; then the task is acknowledged."""
    broker.publish(CHANNEL, json.dumps({"id": call_id, **engine.answer(call_id, body)}))

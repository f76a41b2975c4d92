"""Celery app of a worker with a tiny engine; its pace comes from the environment."""

import os
import threading
import time
from pathlib import Path

from tests.worker.support import MODEL_ID, TinyEngine, TinyPool, TinyRunning
from worker.inference.engine import EngineJob, Sink
from worker.main import Engines, build_app
from worker.node.offers import ServedModel
from worker.settings import NodeSettings

PACE_SECONDS = float(os.environ.get("TINY_PACE_SECONDS", "0"))
# A file: the first engine to find none makes it, and hangs at its third chunk.
HANGS = os.environ.get("TINY_HANGS")


class ThreadedEngine(TinyEngine):
    """A thread a job, so that starting one returns at once, as with a real engine."""

    def submit(self, job: EngineJob, sink: Sink) -> TinyRunning:
        running = TinyRunning()

        def run() -> None:
            try:
                sink(self.run(job, sink, running))
            except Exception as error:  # noqa: BLE001 - as an engine does
                sink(error)

        threading.Thread(target=run, daemon=True).start()
        return running


def load(settings: NodeSettings) -> Engines:
    if os.environ.get("TINY_FAILS"):
        raise RuntimeError("the weights are not there")
    hung_since: list[float] = []

    def before_chunk(index: int) -> None:
        time.sleep(PACE_SECONDS)
        if HANGS and index == 2 and not Path(HANGS).exists():
            Path(HANGS).touch()
            hung_since.append(time.monotonic())
            threading.Event().wait()

    engine = ThreadedEngine(before_chunk, words=8)
    served = ServedModel(
        source=settings.models[0].model, model_id=MODEL_ID, name="tiny", task="chat", context_tokens=512
    )
    return Engines(
        pool=TinyPool(engine),
        served=(served,),
        close=engine.close,
        step_seconds=lambda: time.monotonic() - hung_since[0] if hung_since else 0.0,
    )


app = build_app(NodeSettings(), load)

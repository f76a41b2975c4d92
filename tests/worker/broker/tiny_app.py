"""Celery app of a worker with a tiny engine; its pace comes from the environment."""

import os
import threading
import time

from tests.worker.support import MODEL_ID, TinyEngine, TinyPool, TinyRunning
from worker.inference.engine import EngineJob, Sink
from worker.main import Engines, build_app
from worker.node.offers import ServedModel
from worker.settings import NodeSettings

PACE_SECONDS = float(os.environ.get("TINY_PACE_SECONDS", "0"))


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
    engine = ThreadedEngine(lambda _index: time.sleep(PACE_SECONDS), words=8)
    served = ServedModel(
        source=settings.models[0].model, model_id=MODEL_ID, name="tiny", task="chat", context_tokens=512
    )
    return Engines(pool=TinyPool(engine), served=(served,), close=engine.close)


app = build_app(NodeSettings(), load)

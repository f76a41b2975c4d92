"""The engines of a node, one for each model it serves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial

from marketplace.protocol.hexes import to_hex
from worker.inference.embed import EmbedEngine
from worker.inference.engine import Engine, EngineSettings
from worker.inference.errors import EngineFailed, ModelNotServed
from worker.inference.generate import ChatEngine
from worker.metering import EnergySource, choose_source
from worker.models import ModelDir, Task

BuildEngine = Callable[[ModelDir], Engine]


class EnginePool:
    """Engines by model id. Safe to use from many threads."""

    def __init__(self, models: Iterable[ModelDir], build: BuildEngine) -> None:
        self._models = {model.model_id: model for model in models}
        self._build = build
        self._engines: dict[bytes, Engine] = {}
        self._lock = threading.Lock()
        self._closed = False

    def load(self) -> None:
        """Loads every model; returns when all can run jobs. Raises `EngineFailed`."""
        for model_id in self._models:
            self.engine_for(model_id)

    def engine_for(self, model_id: bytes) -> Engine:
        """The model's engine, loaded; one that broke down is replaced.

        Raises:
            ModelNotServed: not one of this node's models.
            EngineFailed: it could not be loaded.
        """
        model = self._models.get(model_id)
        if model is None:
            raise ModelNotServed(to_hex(model_id))
        with self._lock:
            if self._closed:
                raise EngineFailed("the node is shutting down")
            engine = self._engines.get(model_id)
            if engine is None or not engine.alive:
                engine = self._build(model)
                engine.load()
                self._engines[model_id] = engine
            return engine

    def loaded(self) -> tuple[ModelDir, ...]:
        """Models whose engines can run jobs now."""
        return tuple(self._models[key] for key, engine in list(self._engines.items()) if engine.alive)

    def close(self) -> None:
        """Stops all engines; jobs still running fail. Idempotent."""
        with self._lock:
            self._closed = True
            for engine in self._engines.values():
                engine.close()


def engine_builder(
    settings: EngineSettings, *, now_ms: Callable[[], int], energy: EnergySource | None = None
) -> BuildEngine:
    """Builds the engine a model's task asks for, not yet loaded."""
    source = energy or choose_source(milliwatts_per_core=settings.milliwatts_per_core)
    return partial(_build, settings=settings, now_ms=now_ms, energy=source)


def _build(
    model: ModelDir, *, settings: EngineSettings, now_ms: Callable[[], int], energy: EnergySource
) -> Engine:
    kind = ChatEngine if model.task is Task.CHAT else EmbedEngine
    return kind(model, settings, energy=energy, now_ms=now_ms)

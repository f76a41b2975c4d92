"""Which engine does which task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from worker.inference.batch import BatchEngine, RowTask
from worker.inference.classify import ClassifyTask
from worker.inference.embed import EmbedTask
from worker.inference.engine import Engine, EngineSettings, Upstream
from worker.inference.generate import ChatEngine
from worker.inference.images import ImagesTask
from worker.inference.remote import RemoteEngine
from worker.inference.rerank import RerankTask
from worker.metering import EnergySource
from worker.models import ModelDir, Task

ROW_TASKS: Final[dict[Task, Callable[[ModelDir, EngineSettings], RowTask]]] = {
    Task.EMBED: EmbedTask,
    Task.CLASSIFY: ClassifyTask,
    Task.RERANK: RerankTask,
    Task.CLASSIFY_IMAGE: ImagesTask,
}


def build_engine(
    model: ModelDir,
    settings: EngineSettings,
    *,
    energy: EnergySource,
    now_ms: Callable[[], int],
    upstream: Upstream | None = None,
) -> Engine:
    """The engine for a model's task, not yet loaded; `upstream` runs it in place of this process."""
    if upstream is not None:
        return RemoteEngine(model, settings, upstream, now_ms=now_ms)
    if model.task == Task.CHAT:
        return ChatEngine(model, settings, energy=energy, now_ms=now_ms)
    task = ROW_TASKS[model.task](model, settings)
    return BatchEngine(task, model, settings, energy=energy, now_ms=now_ms)

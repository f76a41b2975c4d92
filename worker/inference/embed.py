"""The embedding engine: sentence models that pool by mean, texts of many jobs in one batch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import EmbedPayload, Payload
from worker.inference.embedder import Embedder, EmbeddingModel
from worker.inference.engine import Emit, EngineJob, EngineSettings, Outcome, Profile
from worker.inference.errors import EmptyInput, ModelNotServed, WrongTask
from worker.inference.host import EngineThread
from worker.metering import EnergySource, StepMeter, cpu_clock
from worker.models import ModelDir

# Raised when a change of code changes vectors.
_VERSION = 1


class EmbedEngine:
    """Embeds texts of many jobs at once; an `Engine`."""

    def __init__(
        self,
        model: ModelDir,
        settings: EngineSettings,
        *,
        energy: EnergySource,
        now_ms: Callable[[], int],
    ) -> None:
        self._model_id = to_hex(model.model_id)
        self._settings = settings
        self._model = EmbeddingModel(model.path, device=settings.device)
        self._embedder = Embedder(
            self._model,
            budget=settings.embed_batch_tokens,
            meter=StepMeter(energy, cpu_clock=cpu_clock(settings.threads)),
            now_ms=now_ms,
        )
        self._thread = EngineThread(f"embed-{self._model_id[:10]}", self._embedder, threads=settings.threads)

    @property
    def profile(self) -> Profile:
        """Versions and shapes behind the results."""
        engine = f"wattline-embed-{_VERSION}/batch{self._settings.embed_batch_tokens}"
        return Profile(engine=engine, torch=torch.__version__, dtype=self._model.dtype)

    @property
    def alive(self) -> bool:
        """Whether jobs can be run."""
        return self._thread.alive

    def load(self) -> None:
        """Reads the weights; returns when jobs can run. Raises `EngineFailed`."""
        self._thread.load()

    def units_in(self, payload: Payload) -> int:
        """Tokens of all texts as the model reads them: longer texts count up to its limit."""
        return sum(len(tokens) for tokens in self._model.encode(_texts(payload)))

    def run(self, job: EngineJob, emit: Emit) -> Outcome:
        """Embeds, handing at most 16 vectors at a time to `emit` on this thread."""
        if job.payload.model != self._model_id:
            raise ModelNotServed(job.payload.model)
        _texts(job.payload)
        return self._thread.run(job, emit)

    def close(self) -> None:
        """Stops; jobs still running fail. Idempotent."""
        self._thread.close()


def _texts(payload: Payload) -> tuple[str, ...]:
    if not isinstance(payload, EmbedPayload):
        raise WrongTask(payload.task, "embed")
    for place, text in enumerate(payload.input):
        if not text.strip():
            raise EmptyInput(f"input.{place}")
    return payload.input

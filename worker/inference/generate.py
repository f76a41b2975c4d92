"""The chat engine: any causal language model that ships with transformers and has a chat template."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Payload
from worker.inference.decoder import Decoder
from worker.inference.engine import Emit, EngineJob, EngineSettings, Outcome, Profile
from worker.inference.errors import ModelNotServed
from worker.inference.host import EngineThread
from worker.inference.prompt import ChatTokenizer
from worker.inference.ragged import RaggedModel
from worker.metering import EnergySource, StepMeter, cpu_clock
from worker.models import ModelDir

# Raised when a change of code changes tokens or their bits.
_VERSION = 1


class ChatEngine:
    """Generates text for many jobs at once; an `Engine`."""

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
        self._tokenizer = ChatTokenizer(model.path, context_tokens=settings.max_batch_tokens)
        self._decoder = Decoder(
            partial(RaggedModel, model.path, device=settings.device, tile_rows=settings.tile_rows),
            self._tokenizer,
            settings,
            meter=StepMeter(energy, cpu_clock=cpu_clock(settings.threads)),
            now_ms=now_ms,
        )
        self._thread = EngineThread(f"chat-{self._model_id[:10]}", self._decoder, threads=settings.threads)

    @property
    def profile(self) -> Profile:
        """Versions and shapes behind the results."""
        shapes = f"tile{self._settings.tile_rows}/block{self._settings.prompt_block}"
        engine = f"wattline-chat-{_VERSION}/{shapes}/gumbel1"
        return Profile(engine=engine, torch=torch.__version__, dtype=self._decoder.dtype)

    @property
    def alive(self) -> bool:
        """Whether jobs can be run."""
        return self._thread.alive

    def load(self) -> None:
        """Reads the weights; returns when jobs can run. Raises `EngineFailed`."""
        self._thread.load()

    def units_in(self, payload: Payload) -> int:
        """Prompt tokens, chat template included. Raises `BadRequest`."""
        return len(self._tokenizer.prompt(payload).tokens)

    def run(self, job: EngineJob, emit: Emit) -> Outcome:
        """Generates, handing chunks to `emit` on this thread until the answer has ended."""
        if job.payload.model != self._model_id:
            raise ModelNotServed(job.payload.model)
        return self._thread.run(job, emit)

    def close(self) -> None:
        """Stops; jobs still running fail. Idempotent."""
        self._thread.close()

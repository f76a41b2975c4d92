"""The chat engine: any causal language model that ships with transformers and has a chat template."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from marketplace.protocol.annex import Profile
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Payload
from worker.inference.decoder import Decoder
from worker.inference.engine import Emit, EngineJob, EngineSettings, Outcome, Running, Sink
from worker.inference.errors import ModelNotServed
from worker.inference.host import EngineThread
from worker.inference.prompt import ChatTokenizer
from worker.inference.ragged import RaggedModel
from worker.metering import EnergySource, StepMeter, cpu_clock
from worker.models import ModelDir
from worker.proofs import fingerprint, sampling
from worker.proofs.calibration import shipped_hash
from worker.proofs.device import device_class

# Raised when a change of code changes tokens or their bits.
_VERSION = 3


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
        self._model = model
        self._tokenizer = ChatTokenizer(model.path)
        self._decoder = Decoder(
            partial(RaggedModel, model.path, device=settings.device, tile_rows=settings.tile_rows),
            self._tokenizer,
            settings,
            meter=StepMeter(energy, cpu_clock=lambda: cpu_clock(self._decoder.threads)()),
            now_ms=now_ms,
        )
        self._thread = EngineThread(f"chat-{self._model_id[:10]}", self._decoder, threads=settings.threads)
        self._profile = Profile()

    @property
    def profile(self) -> Profile:
        """Versions and shapes behind the results."""
        return self._profile

    @property
    def alive(self) -> bool:
        """Whether jobs can be run."""
        return self._thread.alive

    def load(self) -> None:
        """Reads the weights; returns when jobs can run. Raises `EngineFailed`."""
        self._thread.load()
        # Put together once: every job asks for it.
        self._profile = chat_profile(
            self._model,
            self._settings,
            dtype=self._decoder.dtype,
            threads=self._decoder.threads,
            context_tokens=self._tokenizer.context_tokens,
        )

    def units_in(self, payload: Payload) -> int:
        """Prompt tokens, chat template included. Raises `BadRequest`."""
        return len(self._tokenizer.prompt(payload).tokens)

    def run(self, job: EngineJob, emit: Emit) -> Outcome:
        """Generates, handing chunks to `emit` on this thread until the answer has ended."""
        if job.payload.model != self._model_id:
            raise ModelNotServed(job.payload.model)
        return self._thread.run(job, emit)

    def submit(self, job: EngineJob, sink: Sink) -> Running:
        """Generates, handing chunks and the outcome to `sink` on the engine's thread."""
        if job.payload.model != self._model_id:
            raise ModelNotServed(job.payload.model)
        return self._thread.submit(job, sink)

    def close(self) -> None:
        """Stops; jobs still running fail. Idempotent."""
        self._thread.close()


def chat_profile(
    model: ModelDir, settings: EngineSettings, *, dtype: str, threads: int, context_tokens: int
) -> Profile:
    """What decides the results of an engine with these settings on this machine."""
    bare = Profile(
        engine=f"wattline-chat-{_VERSION}",
        torch=torch.__version__,
        dtype=dtype,
        tile_rows=settings.tile_rows,
        prompt_block=settings.prompt_block,
        threads=threads,
        sampler=sampling.SCHEME,
        trace=fingerprint.SCHEME,
        template=model.manifest.chat_template or "",
        device=device_class(settings.device),
        context_tokens=context_tokens,
    )
    return bare.model_copy(update={"calibration": shipped_hash(to_hex(model.model_id), bare)})

"""The engines of a node, one for each model in memory, and what comes in and goes out of it."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch

from marketplace.protocol.annex import Profile
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.payloads import Payload
from worker.inference.engine import (
    Chunk,
    Emit,
    Engine,
    EngineJob,
    EngineSettings,
    Outcome,
    Running,
    Sink,
    Upstream,
)
from worker.inference.errors import EngineFailed, ModelChanged, ModelNotServed
from worker.inference.host import waited
from worker.inference.tasks import build_engine
from worker.metering import EnergySource, choose_source
from worker.models import ModelDir

BuildEngine = Callable[[ModelDir], Engine]
_STATM: Final = Path("/proc/self/statm")


@dataclass(slots=True, eq=False)
class _Slot:
    """A model, and its engine while it is in memory."""

    model: ModelDir
    pinned: bool
    loading: threading.Lock = field(default_factory=threading.Lock)
    engine: Engine | None = None
    users: int = 0
    used_at: int = 0
    size_bytes: int = 0
    leaving: bool = False
    changed: str = ""


class EnginePool:
    """Engines by model id. Safe to use from many threads.

    A model is loaded when it is first needed. Where `memory_bytes` (0: no bound) does not hold them all, the
    one unused for longest leaves, unless it is pinned or runs a job. Sizes are measured while loading.
    """

    def __init__(
        self,
        models: Iterable[ModelDir],
        build: BuildEngine,
        *,
        memory_bytes: int = 0,
        pinned: frozenset[bytes] = frozenset(),
        used_bytes: Callable[[], int] | None = None,
    ) -> None:
        self._build = build
        self._memory_bytes = memory_bytes
        self._used_bytes = used_bytes or resident_bytes
        self._slots = {model.model_id: _Slot(model, model.model_id in pinned) for model in models}
        # Guards the slots; held for moments only, never while a model loads.
        self._moved = threading.Condition()
        self._ticks = itertools.count(1)
        self._closed = False

    def load(self) -> None:
        """Loads every model that fits; returns when those can run jobs. Raises `EngineFailed`."""
        for model_id, slot in list(self._slots.items()):
            if not slot.leaving and self._fits(slot):
                self.engine_for(model_id)

    def add(self, model: ModelDir, *, pinned: bool = False) -> None:
        """Makes a model known, or welcome again; it is loaded when first needed. Idempotent."""
        with self._moved:
            slot = self._slots.setdefault(model.model_id, _Slot(model, pinned))
            slot.leaving, slot.pinned = False, pinned

    def retire(self, model_id: bytes) -> None:
        """Closes a model's engine as soon as no job uses it. Jobs still to come load it again. Idempotent."""
        with self._moved:
            slot = self._slots.get(model_id)
            if slot is not None:
                slot.leaving = True
                self._close_idle(slot)

    def forget(self, model_id: bytes) -> bool:
        """Forgets a model; False while a job uses it. Jobs still to come are refused."""
        with self._moved:
            slot = self._slots.get(model_id)
            if slot is None:
                return True
            if slot.users:
                return False
            self._close(slot)
            del self._slots[model_id]
            return True

    def condemn(self, model_id: bytes, why: str) -> None:
        """Runs no new job of a model whose files are not what they were. Those that run go on."""
        with self._moved:
            slot = self._slots.get(model_id)
            if slot is not None:
                slot.changed = why

    def engine_for(self, model_id: bytes) -> Engine:
        """The model's engine, loaded. It stays usable however models come and go meanwhile.

        Raises:
            ModelNotServed: not one of this node's models.
            ModelChanged: its files are not what they were.
            EngineFailed: it could not be loaded.
        """
        with self.using(model_id):
            return _Lent(self, model_id)

    def units_in(self, payload: Payload) -> int | None:
        """Input units a job would be billed for; None for a model not in memory: counting loads nothing.

        Raises:
            BadRequest: not a payload its engine can run.
        """
        with self._moved:
            slot = self._slots.get(from_hex(payload.model, 32))
            engine = slot.engine if slot is not None and not slot.changed else None
        return engine.units_in(payload) if engine is not None and engine.alive else None

    def loaded(self) -> tuple[ModelDir, ...]:
        """Models whose engines can run jobs now."""
        with self._moved:
            slots = list(self._slots.values())
        return tuple(slot.model for slot in slots if slot.engine is not None and slot.engine.alive)

    def models(self) -> tuple[ModelDir, ...]:
        """Every model jobs may be for."""
        with self._moved:
            return tuple(slot.model for slot in self._slots.values() if not slot.changed)

    def sizes(self) -> dict[bytes, int]:
        """Measured bytes of the models in memory."""
        with self._moved:
            return {key: slot.size_bytes for key, slot in self._slots.items() if slot.engine is not None}

    def close(self) -> None:
        """Stops all engines; jobs still running fail. Idempotent."""
        with self._moved:
            self._closed = True
            for slot in self._slots.values():
                self._close(slot)
            self._moved.notify_all()

    @contextmanager
    def using(self, model_id: bytes) -> Iterator[Engine]:
        """The model's engine, which does not leave memory before the block ends. Raises as `engine_for`."""
        with self._moved:
            slot = self._slots.get(model_id)
            if slot is None:
                raise ModelNotServed(to_hex(model_id))
            if slot.changed:
                raise ModelChanged(to_hex(model_id), slot.changed)
            slot.users += 1
            slot.used_at = next(self._ticks)
        try:
            yield self._ready(slot)
        finally:
            with self._moved:
                slot.users -= 1
                if slot.leaving and not slot.users:
                    engine, slot.engine, slot.size_bytes = slot.engine, None, 0
                    # A job may end on its engine's thread, which cannot wait for itself.
                    if engine is not None:
                        threading.Thread(target=engine.close, name="closing", daemon=True).start()
                self._moved.notify_all()

    def _ready(self, slot: _Slot) -> Engine:
        # One loads, the others of this model wait; those of other models go on.
        with slot.loading:
            if self._closed:
                raise EngineFailed("the node is shutting down")
            engine = slot.engine
            if engine is not None and engine.alive:
                return engine
            self._make_room(slot)
            try:
                return self._load(slot)
            finally:
                with self._moved:
                    if slot.engine is None:
                        slot.size_bytes = 0
                    self._moved.notify_all()

    def _load(self, slot: _Slot) -> Engine:
        before = self._used_bytes()
        engine = self._build(slot.model)
        engine.load()
        measured = max(_weights_bytes(slot.model), self._used_bytes() - before)
        with self._moved:
            if self._closed:
                engine.close()
                raise EngineFailed("the node is shutting down")
            slot.engine, slot.size_bytes = engine, measured
        return engine

    def _make_room(self, slot: _Slot) -> None:
        """Claims memory for a model, sending others out of it; waits while jobs hold what is needed."""
        with self._moved:
            self._close(slot)
            need = slot.size_bytes or _weights_bytes(slot.model)
            slot.size_bytes = 0
            while self._memory_bytes and self._taken() + need > self._memory_bytes:
                idle = [s for s in self._slots.values() if s.engine is not None and not s.users]
                idle = [s for s in idle if not s.pinned]
                if idle:
                    leaver = min(idle, key=lambda s: s.used_at)
                    self._close(leaver)
                    leaver.size_bytes = 0
                elif any(s.size_bytes and not s.pinned for s in self._slots.values()):
                    # It runs a job, or is being loaded for one.
                    self._moved.wait(1.0)
                else:
                    raise EngineFailed(
                        f"{slot.model.path.name} needs {need} bytes; pinned models leave"
                        f" {max(0, self._memory_bytes - self._taken())} of {self._memory_bytes}"
                    )
                if self._closed:
                    raise EngineFailed("the node is shutting down")
            slot.size_bytes = need

    def _fits(self, slot: _Slot) -> bool:
        with self._moved:
            room = self._memory_bytes - self._taken()
        return not self._memory_bytes or slot.pinned or _weights_bytes(slot.model) <= room

    def _taken(self) -> int:
        return sum(slot.size_bytes for slot in self._slots.values())

    def _close_idle(self, slot: _Slot) -> None:
        if not slot.users:
            self._close(slot)
            slot.size_bytes = 0

    def _close(self, slot: _Slot) -> None:
        engine, slot.engine = slot.engine, None
        if engine is not None:
            engine.close()


class _Lent:
    """A model's engine as a caller holds it: each job runs on whichever engine is in memory then."""

    def __init__(self, pool: EnginePool, model_id: bytes) -> None:
        self._pool = pool
        self._model_id = model_id
        self._profile: Profile | None = None

    @property
    def profile(self) -> Profile:
        """Of the engine that ran the last job; before one, of the engine now in memory."""
        if self._profile is None:
            with self._pool.using(self._model_id) as engine:
                return engine.profile
        return self._profile

    @property
    def alive(self) -> bool:
        """Whether jobs can be run without loading first."""
        return any(model.model_id == self._model_id for model in self._pool.loaded())

    def load(self) -> None:
        """Brings the model into memory."""
        with self._pool.using(self._model_id):
            return

    def units_in(self, payload: Payload) -> int:
        """Input tokens the job would be billed for."""
        with self._pool.using(self._model_id) as engine:
            return engine.units_in(payload)

    def run(self, job: EngineJob, emit: Emit) -> Outcome:
        """Runs a job; the engine cannot leave memory before it has ended."""
        return waited(self.submit, job, emit)

    def submit(self, job: EngineJob, sink: Sink) -> Running:
        """Starts a job; the engine cannot leave memory before it has ended or was dropped."""
        run = _LentRun()

        def pass_on(event: Chunk | Outcome | Exception) -> None:
            if not isinstance(event, Chunk):
                run.give_back()
            sink(event)

        with ExitStack() as lent:
            engine = lent.enter_context(self._pool.using(self._model_id))
            self._profile = engine.profile
            run.running = engine.submit(job, pass_on)
            run.keep(lent.pop_all())
        return run

    def close(self) -> None:
        """Lets the engine go when nobody else uses it."""
        self._pool.retire(self._model_id)


class _LentRun:
    """A job on a lent engine; a `Running`."""

    def __init__(self) -> None:
        self.running: Running | None = None
        self._lent: ExitStack | None = None
        self._ended = False
        # The job may end, be kept and be dropped at once, on three threads.
        self._lock = threading.Lock()

    def keep(self, lent: ExitStack) -> None:
        """Holds the engine until the job has ended."""
        with self._lock:
            if not self._ended:
                self._lent = lent
                return
        lent.close()

    def stop(self) -> None:
        """Ends it at the next step."""
        if self.running is not None:
            self.running.stop()

    def drop(self) -> None:
        """Lets go of it, and of the engine."""
        if self.running is not None:
            self.running.drop()
        self.give_back()

    def give_back(self) -> None:
        """The engine may leave memory. Idempotent."""
        with self._lock:
            lent, self._lent, self._ended = self._lent, None, True
        if lent is not None:
            lent.close()


def resident_bytes() -> int:
    """Memory of this process and of its GPU tensors, in bytes; 0 where the system does not say."""
    gpu = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    if not _STATM.exists():
        return gpu
    return gpu + int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _weights_bytes(model: ModelDir) -> int:
    return sum(file.size for file in model.manifest.files if file.path.endswith(".safetensors"))


def engine_builder(
    settings: EngineSettings,
    *,
    now_ms: Callable[[], int],
    energy: EnergySource | None = None,
    upstreams: Mapping[bytes, Upstream] = MappingProxyType({}),
) -> BuildEngine:
    """Builds the engine a model's task asks for, not yet loaded; `upstreams` are servers by model id."""
    source = energy or choose_source(milliwatts_per_core=settings.milliwatts_per_core)

    def build(model: ModelDir) -> Engine:
        upstream = upstreams.get(model.model_id)
        return build_engine(model, settings, energy=source, now_ms=now_ms, upstream=upstream)

    return build

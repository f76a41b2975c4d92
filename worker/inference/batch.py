"""The engine of tasks whose answer is one row an input: inputs of many jobs in batches under a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final

import torch

from marketplace.protocol.annex import Profile
from marketplace.protocol.answers import CHUNK_TEXTS, Answer, rows_chunk
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.payloads import Payload
from worker.inference.engine import (
    Chunk,
    Emit,
    EngineJob,
    EngineSettings,
    Finish,
    Outcome,
    Running,
    Sink,
)
from worker.inference.errors import ModelNotServed, ResumeMismatch, WrongTask
from worker.inference.fit import best_threads, usable_cores
from worker.inference.host import EngineThread, Ticket
from worker.inference.pace import Pace
from worker.metering import EnergySource, StepMeter, cpu_clock
from worker.models import ModelDir
from worker.proofs.device import device_class

# Among the inputs of so many batches, the oldest finds its like.
_BATCHES_SEEN: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One input, prepared. `units` are billed; `cost` is what it takes of a batch."""

    units: int
    cost: int
    data: Any


class RowTask(ABC):
    """What a task adds: how to prepare an input, compute a batch of them, and write rows."""

    payload: ClassVar[type[Payload]]
    # Whether only items of one cost share a batch: its shape then never depends on who else is in it.
    uniform: ClassVar[bool] = True

    @property
    def padded(self) -> bool:
        """Whether a batch computes its largest cost for each of its items; else the sum of all."""
        return True

    @property
    @abstractmethod
    def profile(self) -> tuple[str, str]:
        """Name with version and shapes, as `classify-1/tile16`, and the element type once loaded."""

    @abstractmethod
    def load(self) -> None:
        """Reads the weights; on the engine's thread."""

    @abstractmethod
    def items(self, payload: Any) -> list[Item]:
        """The inputs, in order; called from many threads. Raises `BadRequest`."""

    @abstractmethod
    def compute(self, items: Sequence[Any]) -> list[Any]:
        """Results of the data of some items, in order; on the engine's thread."""

    def trial(self) -> list[Any]:
        """Data of a batch that tells which number of threads is fast; empty: one thread."""
        return []

    def chunk(self, first_index: int, results: Sequence[Any]) -> bytes:
        """Response chunk with consecutive results; each is the content of a row."""
        return rows_chunk(first_index, results)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedJob(EngineJob):
    """A job whose inputs were prepared on its caller's thread."""

    items: tuple[Item, ...]


class BatchEngine:
    """Runs a `RowTask` for many jobs at once; an `Engine`."""

    def __init__(
        self,
        task: RowTask,
        model: ModelDir,
        settings: EngineSettings,
        *,
        energy: EnergySource,
        now_ms: Callable[[], int],
    ) -> None:
        self._task = task
        self._model_id = to_hex(model.model_id)
        self._device = device_class(settings.device)
        self._name = str(task.payload.model_fields["task"].default)
        self._batcher = Batcher(
            task,
            budget=settings.embed_batch_tokens,
            meter=StepMeter(energy, cpu_clock=lambda: cpu_clock(self._batcher.threads)()),
            now_ms=now_ms,
            threads=settings.threads,
        )
        name = f"{self._name}-{self._model_id[:10]}"
        self._thread = EngineThread(name, self._batcher, threads=settings.threads)

    @property
    def profile(self) -> Profile:
        """Versions and shapes behind the results."""
        name, dtype = self._task.profile
        return Profile(
            engine=f"wattline-{name}",
            torch=torch.__version__,
            dtype=dtype,
            threads=self._batcher.threads,
            device=self._device,
        )

    @property
    def alive(self) -> bool:
        """Whether jobs can be run."""
        return self._thread.alive

    def load(self) -> None:
        """Reads the weights; returns when jobs can run. Raises `EngineFailed`."""
        self._thread.load()

    def units_in(self, payload: Payload) -> int:
        """Units of all inputs as the model reads them. Raises `BadRequest`."""
        return sum(item.units for item in self._items(payload))

    def run(self, job: EngineJob, emit: Emit) -> Outcome:
        """Computes, handing at most 16 rows at a time to `emit` on this thread."""
        return self._thread.run(self._prepared(job), emit)

    def submit(self, job: EngineJob, sink: Sink) -> Running:
        """Computes, handing chunks and the outcome to `sink` on the engine's thread."""
        return self._thread.submit(self._prepared(job), sink)

    def close(self) -> None:
        """Stops; jobs still running fail. Idempotent."""
        self._thread.close()

    def _prepared(self, job: EngineJob) -> PreparedJob:
        if job.payload.model != self._model_id:
            raise ModelNotServed(job.payload.model)
        given = {one.name: getattr(job, one.name) for one in fields(EngineJob)}
        return PreparedJob(**given, items=tuple(self._items(job.payload)))

    def _items(self, payload: Payload) -> list[Item]:
        if not isinstance(payload, self._task.payload):
            raise WrongTask(payload.task, self._name)
        return self._task.items(payload)


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One job: its inputs, and the results there are."""

    ticket: Ticket
    items: tuple[Item, ...]
    sent: int
    chunks: int
    results: dict[int, Any] = field(default_factory=dict)
    ended: bool = False


Place = tuple[Job, int]


def _cost(place: Place) -> int:
    job, index = place
    return job.items[index].cost


class Batcher:
    """Computes for many jobs at once; a `Stepper`."""

    def __init__(
        self,
        task: RowTask,
        *,
        budget: int,
        meter: StepMeter,
        now_ms: Callable[[], int],
        threads: int = 1,
    ) -> None:
        """`threads` of torch; 0: what is fast when it starts."""
        self._task = task
        self._budget = budget
        self._meter = meter
        self._pace = Pace(now_ms)
        self._waiting: list[Place] = []
        self._choose_threads = not threads
        self.threads = threads or 1

    def start(self) -> None:
        """Loads the weights."""
        self._task.load()
        if self._choose_threads and (trial := self._task.trial()):
            self.threads = best_threads(lambda: self._task.compute(trial), cores=usable_cores())

    def admit(self, ticket: Ticket) -> None:
        """Queues the inputs of a job, in order."""
        try:
            job = self._prepare(ticket)
        except Exception as error:  # noqa: BLE001  # loop edge: a job's fault must not end the engine
            ticket.put(error)
            return
        if job.sent == len(job.items):
            self._end(job, "done")
        self._waiting.extend((job, index) for index in range(job.sent, len(job.items)))

    def step(self) -> bool:
        """Computes the next batch of inputs and sends what is complete."""
        self._leave()
        if not self._waiting:
            return False
        self._pace.start()
        batch = self._batch()
        mark = self._meter.start()
        results = self._task.compute([job.items[index].data for job, index in batch])
        for (job, index), result in zip(batch, results, strict=True):
            job.results[index] = result
        self._meter.finish(mark, [(job.ticket.tally, job.items[index].cost) for job, index in batch])
        self._pace.finish()
        for job in {job: None for job, _ in batch}:
            self._send(job)
        return bool(self._waiting)

    def _prepare(self, ticket: Ticket) -> Job:
        job = ticket.job
        items = job.items if isinstance(job, PreparedJob) else tuple(self._task.items(job.payload))
        answer = Answer(chunk.body for chunk in job.resume)
        sent = len(answer.vectors) + len(answer.rows)
        if sent > len(items):
            raise ResumeMismatch(job.id, "it has more rows than inputs")
        return Job(ticket=ticket, items=items, sent=sent, chunks=len(job.resume))

    def _leave(self) -> None:
        """Lets go of dropped jobs, ends those to be stopped or out of time."""
        for job in {job: None for job, _ in self._waiting}:
            if job.ticket.cancelled:
                continue
            if job.ticket.stopping:
                self._end(job, "cancelled")
            elif self._pace.is_late(job.ticket.job.stop_at_ms):
                self._end(job, "deadline")
        self._waiting = [(job, i) for job, i in self._waiting if not (job.ended or job.ticket.cancelled)]

    def _batch(self) -> list[Place]:
        """The oldest input, and those nearest to its cost among the next."""
        seen: list[Place] = []
        total = 0
        for place in self._waiting:
            if total >= self._budget * _BATCHES_SEEN:
                break
            seen.append(place)
            total += _cost(place)
        own = _cost(seen[0])
        batch: list[Place] = []
        largest = total = 0
        for place in sorted(seen, key=lambda place: abs(_cost(place) - own)):
            cost = _cost(place)
            largest, total = max(largest, cost), total + cost
            size = (len(batch) + 1) * largest if self._task.padded else total
            if batch and (size > self._budget or (self._task.uniform and cost != own)):
                break
            batch.append(place)
        taken = set(batch)
        self._waiting = [place for place in self._waiting if place not in taken]
        return batch

    def _send(self, job: Job) -> None:
        """Sends groups whose results are all there; ends the job with the last."""
        while job.sent < len(job.items):
            group = range(job.sent, min(job.sent + CHUNK_TEXTS, len(job.items)))
            if any(index not in job.results for index in group):
                return
            body = self._task.chunk(job.sent, [job.results.pop(index) for index in group])
            job.ticket.put(Chunk(index=job.chunks, body=body))
            job.chunks += 1
            job.sent = group.stop
        self._end(job, "done")

    def _end(self, job: Job, finish: Finish) -> None:
        """Only inputs whose rows were sent are counted."""
        job.ended = True
        reading = job.ticket.tally.reading(self._meter.method)
        units = sum(item.units for item in job.items[: job.sent])
        job.ticket.put(Outcome(finish=finish, units_in=units, units_out=0, reading=reading))

"""The thread that owns a model, and the hand-over between it and its callers' threads."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final, Protocol

import torch

from worker.inference.engine import Chunk, Emit, EngineJob, Outcome, Running, Sink
from worker.inference.errors import EngineFailed
from worker.metering import Tally


class Ticket:
    """One job inside an engine; a `Running`. The engine puts events in, the sink gets them.

    `cancelled` and `stopping` are looked at between steps.
    """

    def __init__(self, job: EngineJob, sink: Sink, dropped: Callable[[], None] = lambda: None) -> None:
        self.job = job
        self.tally = Tally()
        self.cancelled = False
        self.stopping = False
        self._sink = sink
        self._dropped = dropped

    def put(self, event: Chunk | Outcome | Exception) -> None:
        """Passes on what happened; an outcome or an error is the last."""
        self._sink(event)

    def stop(self) -> None:
        """Ends the job at the next step; what it has is sent. Idempotent."""
        self.stopping = True

    def drop(self) -> None:
        """Lets go of the job at the next step; nothing more is sent. Idempotent."""
        self.cancelled = True
        self._dropped()


def waited(submit: Callable[[EngineJob, Sink], Running], job: EngineJob, emit: Emit) -> Outcome:
    """Submits a job and passes its chunks to `emit`, on this thread, until it ends."""
    events: queue.SimpleQueue[Chunk | Outcome | Exception] = queue.SimpleQueue()
    running = submit(job, events.put)
    try:
        while True:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Outcome):
                return event
            emit(event)
    finally:
        # Also when `emit` raised: the engine drops the sequence at its next step.
        running.drop()


class Stepper(Protocol):
    """Work that is done in steps; only ever called on the engine's thread."""

    def start(self) -> None:
        """Loads what the steps need."""

    def admit(self, ticket: Ticket) -> None:
        """Takes a job over; errors of this job go into the ticket."""

    def step(self) -> bool:
        """Does a slice of all jobs' work; whether any is left."""


# Every engine of this process: whoever watches it asks for the slowest, whichever that is.
_threads: Final[weakref.WeakSet[EngineThread]] = weakref.WeakSet()


def longest_step_seconds() -> float:
    """How long the step has taken that this process's engines have been at for longest; 0 when none is."""
    return max((thread.step_seconds for thread in list(_threads)), default=0.0)


class EngineThread:
    """Runs a stepper on its own thread and brings every caller its events, or an error, never silence."""

    def __init__(self, name: str, stepper: Stepper, *, threads: int) -> None:
        self._stepper = stepper
        self._threads = threads
        self._inbox: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._open: set[Ticket] = set()
        self._lock = threading.Lock()
        self._loaded = threading.Event()
        self._closing = False
        self._dead: str | None = None
        self._refused: EngineFailed | None = None
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        _threads.add(self)

    @property
    def step_seconds(self) -> float:
        """How long the step under way has taken; 0 between steps."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def alive(self) -> bool:
        """Whether jobs are taken."""
        return self._loaded.is_set() and self._dead is None

    def load(self) -> None:
        """Starts the thread and waits until its stepper is ready."""
        self._thread.start()
        self._loaded.wait()
        if self._dead is not None:
            raise self._refused or EngineFailed(self._dead)

    def run(self, job: EngineJob, emit: Emit) -> Outcome:
        """Submits a job and passes its chunks to `emit` until it ends."""
        return waited(self.submit, job, emit)

    def submit(self, job: EngineJob, sink: Sink) -> Ticket:
        """Hands a job over; its events go to `sink` on the engine's thread, which must not block or raise.

        Raises:
            EngineFailed: the engine takes no jobs.
        """

        def close() -> None:
            with self._lock:
                self._open.discard(ticket)

        def pass_on(event: Chunk | Outcome | Exception) -> None:
            if not isinstance(event, Chunk):
                close()
            sink(event)

        ticket = Ticket(job, pass_on, close)
        with self._lock:
            if self._dead is not None or not self._loaded.is_set():
                raise EngineFailed(self._dead or "it is not loaded")
            self._open.add(ticket)
        self._inbox.put(ticket)
        return ticket

    def close(self) -> None:
        """Ends the thread after its current step. Idempotent."""
        self._closing = True
        self._inbox.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _main(self) -> None:
        reason = "its thread was ended"
        try:
            # Both are per thread in torch, so they belong here and not in a constructor.
            torch.set_num_threads(self._threads or 1)
            with torch.inference_mode():
                self._stepper.start()
                self._loaded.set()
                self._loop()
            reason = "it was closed"
        except EngineFailed as error:
            # Said already what is wrong and what to do: whoever loads should read just that.
            self._refused, reason = error, str(error)
        except Exception as error:  # noqa: BLE001  # loop edge: whatever broke, every caller must hear of it
            reason = f"{type(error).__name__}: {error}"
        finally:
            # Whatever ends this thread, nobody is left waiting for it.
            self._die(reason)

    def _loop(self) -> None:
        busy = False
        while not self._closing:
            self._admit_waiting(block=not busy)
            self._step_began = time.monotonic()
            busy = self._stepper.step()
            self._step_began = None

    def _admit_waiting(self, *, block: bool) -> None:
        if block:
            self._admit(self._inbox.get())
        while not self._inbox.empty():
            self._admit(self._inbox.get())

    def _admit(self, ticket: Ticket | None) -> None:
        if ticket is not None:
            self._stepper.admit(ticket)

    def _die(self, reason: str) -> None:
        self._step_began = None
        with self._lock:
            self._dead = reason
            left, self._open = self._open, set()
        for ticket in left:
            ticket.put(EngineFailed(reason))
        self._loaded.set()

"""What every engine is: load, count, run jobs from many threads, close."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from marketplace.protocol.annex import Profile
from marketplace.protocol.payloads import Payload
from marketplace.protocol.trace import TraceBlock
from worker.metering import Reading

Finish = Literal["stop", "length", "deadline", "done", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How an engine uses its machine.

    Attributes:
        threads: Torch threads of each engine; more than the cores left idle makes it slower. 0: what is
            fast when the engine starts, never more than the cores.
        slots: Sequences generated at the same time.
        max_batch_tokens: Key-value cache positions of all running sequences together; also the longest
            prompt plus answer of one. 0: what `memory_percent` holds.
        memory_percent: Share of the memory free after loading that keys and values may take.
        prefix_percent: Share of those positions for beginnings that prompts have in common; 0 keeps none.
        prompt_block: Prompt tokens computed at once; part of the profile, results depend on it.
        tile_rows: Rows of every matrix product while generating; part of the profile. Always the same
            shape means that a token never depends on what else is in the batch. 0: as it comes, faster
            with few jobs, not reproducible to the bit in bfloat16.
        chunk_tokens: A chunk is sent after this many tokens,
        chunk_ms: or after this long, whichever is first.
        embed_batch_tokens: Tokens of one batch of texts that are read, not written; filling counts.
        device: Torch device.
        milliwatts_per_core: Declared draw of a busy core, for energy figures without a counter.
    """

    threads: int = 1
    slots: int = 32
    max_batch_tokens: int = 0
    memory_percent: int = 50
    prefix_percent: int = 10
    prompt_block: int = 256
    tile_rows: int = 16
    chunk_tokens: int = 8
    chunk_ms: int = 150
    embed_batch_tokens: int = 1024
    device: str = "cpu"
    milliwatts_per_core: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """An OpenAI-compatible server that runs a model's files in place of this process.

    Attributes:
        url: Its API, as in http://127.0.0.1:8000/v1.
        model: Its name for the model; "": the first it lists.
        key: Bearer key; "": none.
        stall_ms: Silence for this long is a failure.
    """

    url: str
    model: str = ""
    key: str = field(default="", repr=False)
    stall_ms: int = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One piece of a response: the bytes that are hashed, and the tokens they account for."""

    index: int
    body: bytes
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineJob:
    """One job for an engine.

    Attributes:
        id: Names the job in errors.
        payload: What is asked.
        seed: 64 bits that decide every draw; the engine never looks at the payload's own seed.
        stop_at_ms: Unix milliseconds; the engine ends before, with finish `deadline`.
        resume: Chunks of an earlier run of this job, from index 0; the answer goes on behind them.
    """

    id: str
    payload: Payload
    seed: int
    stop_at_ms: int
    resume: tuple[Chunk, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended and what it took, earlier runs' units included, their device time not.

    Attributes:
        finish: What ended it.
        units_in: Input tokens read; of images, one each.
        units_out: Tokens generated, end-of-text too; 0 where nothing is written.
        reading: Device time and energy of this run.
        max_tokens: Most tokens the answer could have; 0 where nothing is written.
        trace: What was computed for each block of the answer; empty where nothing commits to it.
    """

    finish: Finish
    units_in: int
    units_out: int
    reading: Reading
    max_tokens: int = 0
    trace: tuple[TraceBlock, ...] = ()


Emit = Callable[[Chunk], None]
Sink = Callable[[Chunk | Outcome | Exception], None]


class Running(Protocol):
    """A job an engine has taken."""

    def stop(self) -> None:
        """Ends it at the next step with finish `cancelled`; what it has is sent and counts. Idempotent."""

    def drop(self) -> None:
        """Lets go of it at the next step; nothing more is sent. Idempotent."""


class Engine(Protocol):
    """Runs one model."""

    @property
    def profile(self) -> Profile:
        """Versions and shapes behind the results; known once loaded."""

    @property
    def alive(self) -> bool:
        """Whether jobs can be run."""

    def load(self) -> None:
        """Reads the weights; returns when jobs can run.

        Raises:
            EngineFailed: the model could not be loaded.
        """

    def units_in(self, payload: Payload) -> int:
        """Input tokens the job would be billed for.

        Raises:
            BadRequest: not a payload this engine can run.
        """

    def run(self, job: EngineJob, emit: Emit) -> Outcome:
        """Runs a job, handing chunks to `emit` in order, on the calling thread.

        Blocks until the job has ended; called from many threads, jobs share batches. When `emit` raises,
        this job stops and the error passes through; other jobs do not notice.

        Raises:
            BadRequest: not a payload this engine can run.
            EngineFailed: the engine broke down or was closed; what was emitted so far can be resumed.
        """

    def submit(self, job: EngineJob, sink: Sink) -> Running:
        """Starts a job and returns at once; `sink` gets its chunks in order, then its outcome or an error.

        The sink is called on the engine's thread; it must neither block nor raise.

        Raises:
            BadRequest: not a payload this engine can run.
            EngineFailed: the engine takes no jobs.
        """

    def close(self) -> None:
        """Stops the engine; jobs still running fail with `EngineFailed`. Idempotent."""

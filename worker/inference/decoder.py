"""Continuous batching: answers join and leave between steps and share every step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from marketplace.protocol.payloads import ChatPayload
from worker.inference.engine import EngineSettings, Finish, Outcome
from worker.inference.fit import free_bytes, token_budget, usable_cores
from worker.inference.host import Ticket
from worker.inference.pace import Pace
from worker.inference.prefixes import Prefixes
from worker.inference.prompt import ChatTokenizer
from worker.inference.ragged import KvCache, RaggedModel
from worker.inference.stream import ChunkStream, TextBuffer
from worker.metering import StepMeter, Tally
from worker.proofs.logprobs import logprobs
from worker.proofs.sampling import choose
from worker.proofs.trace import TraceWriter

# Replayed tokens attend one by one; so many at a time keep the other answers moving.
_REPLAY_BLOCK: Final = 64


@dataclass(slots=True, eq=False, kw_only=True)
class Answering:
    """One answer being written: tokens to compute before the next can be chosen, and its stream."""

    ticket: Ticket
    payload: ChatPayload
    prompt: list[int]
    replay: list[int]
    stream: ChunkStream
    cache: KvCache
    max_tokens: int
    trace: TraceWriter
    # How an earlier run ended: its tokens are computed again for their trace only.
    known: Finish | None = None
    finish: Finish | None = None
    # The token chosen last, still to be computed; none while prompt or replay are.
    chosen: int | None = None

    @property
    def units_in(self) -> int:
        """Prompt tokens read, by this run or an earlier one."""
        return len(self.prompt) if self.replay else min(self.cache.length, len(self.prompt))


class Decoder:
    """Generates for many jobs at once; a `Stepper`."""

    def __init__(
        self,
        open_model: Callable[[], RaggedModel],
        tokenizer: ChatTokenizer,
        settings: EngineSettings,
        *,
        meter: StepMeter,
        now_ms: Callable[[], int],
    ) -> None:
        self._open_model = open_model
        self._tokenizer = tokenizer
        self._settings = settings
        self._meter = meter
        self._now_ms = now_ms
        self._pace = Pace(now_ms)
        self._waiting: deque[Answering] = deque()
        self._running: list[Answering] = []
        self._budget = settings.max_batch_tokens
        self.threads = settings.threads or 1
        self.dtype = ""

    def start(self) -> None:
        """Loads the weights."""
        self._model = self._open_model()
        self.dtype = self._model.dtype
        if not self._settings.threads:
            self.threads = self._model.choose_threads(usable_cores())
        if not self._budget:
            free = free_bytes(self._settings.device)
            self._budget = token_budget(
                self._model.bytes_per_token, free, percent=self._settings.memory_percent
            )
        kept = self._budget * self._settings.prefix_percent // 100
        self._prefixes = Prefixes(kept)
        self._budget -= kept
        # What could never run is refused at once; an answer is clipped to what is left for it.
        self._tokenizer.limit(self._budget)

    def admit(self, ticket: Ticket) -> None:
        """Prepares a job; it waits until the batch has room."""
        try:
            answering = self._prepare(ticket)
        except Exception as error:  # noqa: BLE001  # loop edge: a job's fault must not end the engine
            ticket.put(error)
            return
        if answering.known and not answering.replay:
            self._end(answering, answering.known)
        else:
            self._waiting.append(answering)

    def step(self) -> bool:
        """Writes one token of every running answer, reads a block of prompts."""
        self._leave()
        self._join()
        self._pace.start()
        mark = self._meter.start()
        # In this order the first token of an answer is sent before its second is computed.
        shares = [*self._write(), *self._read()]
        self._meter.finish(mark, shares)
        self._pace.finish()
        self._send()
        return bool(self._running or self._waiting)

    def _prepare(self, ticket: Ticket) -> Answering:
        job = ticket.job
        prompt = self._tokenizer.prompt(job.payload)
        stream = ChunkStream(
            text=TextBuffer(self._tokenizer.decode, prompt.payload.stop),
            ends=self._tokenizer.ends,
            max_tokens=prompt.max_tokens,
            chunk_tokens=self._settings.chunk_tokens,
            chunk_ms=self._settings.chunk_ms,
            now_ms=self._now_ms,
        )
        known = stream.resume(job.id, job.resume)
        replay = [token for chunk in job.resume for token in chunk.token_ids]
        return Answering(
            ticket=ticket,
            payload=prompt.payload,
            prompt=prompt.tokens,
            replay=replay,
            stream=stream,
            cache=KvCache(len(prompt.tokens) + prompt.max_tokens),
            max_tokens=prompt.max_tokens,
            trace=TraceWriter(replay),
            known=known,
        )

    def _leave(self) -> None:
        """Lets go of dropped jobs, ends those to be stopped or out of time."""
        for one in [*self._running, *self._waiting]:
            if not _goes_on(one):
                continue
            # An answer that has its end already only waits for its trace.
            if one.ticket.stopping and not one.known:
                self._end(one, "cancelled")
            elif self._pace.is_late(one.ticket.job.stop_at_ms):
                self._end(one, one.known or "deadline")
        self._running = [one for one in self._running if _goes_on(one)]
        self._waiting = deque(one for one in self._waiting if _goes_on(one))

    def _join(self) -> None:
        """First come, first served, while slots and cache positions last."""
        taken = sum(one.cache.capacity for one in self._running)
        while self._waiting and len(self._running) < self._settings.slots:
            taken += self._waiting[0].cache.capacity
            if taken > self._budget:
                return
            self._running.append(self._waiting.popleft())

    def _read(self) -> Iterable[tuple[Tally, int]]:
        """Prompt blocks until a block's worth of tokens is read; at least one."""
        budget = self._settings.prompt_block
        for one in self._running:
            while one.chosen is None and one.finish is None and budget > 0:
                self._reuse(one)
                tokens, logits = self._read_block(one)
                budget -= tokens
                if one.cache.length == len(one.prompt) + len(one.replay):
                    if one.known:
                        one.finish = one.known
                    else:
                        self._choose(one, logits)
                yield one.ticket.tally, tokens

    def _reuse(self, one: Answering) -> None:
        """Copies the blocks that another job has read; the last is computed, for its scores."""
        size = self._settings.prompt_block
        while (end := one.cache.length + size) < len(one.prompt):
            block = self._prefixes.find(one.prompt[:end])
            if block is None:
                return
            self._model.restore(one.cache, block)

    def _read_block(self, one: Answering) -> tuple[int, Tensor]:
        done = one.cache.length
        # Blocks start at multiples of their size: what else is running never moves their borders.
        if done < len(one.prompt):
            block = one.prompt[done : done + self._settings.prompt_block]
            logits = self._model.prompt_block(one.cache, block)
            if len(block) == self._settings.prompt_block:
                self._prefixes.keep(one.prompt[: one.cache.length], self._model.copy_of(one.cache, done))
            if one.cache.length == len(one.prompt):
                one.trace.see(self._model.hidden[-1:].clone())
            return len(block), logits
        block = one.replay[done - len(one.prompt) :][:_REPLAY_BLOCK]
        logits = self._model.replay(one.cache, block)
        one.trace.see(self._model.hidden)
        return len(block), logits

    def _write(self) -> Iterable[tuple[Tally, int]]:
        writing = [
            (one, one.chosen) for one in self._running if one.chosen is not None and one.finish is None
        ]
        if not writing:
            return
        logits = self._model.decode([one.cache for one, _ in writing], [token for _, token in writing])
        hidden = self._model.hidden.cpu()
        for i, ((one, _), row) in enumerate(zip(writing, logits, strict=True)):
            one.trace.see(hidden[i : i + 1])
            self._choose(one, row)
            yield one.ticket.tally, 1

    def _choose(self, one: Answering, logits: Tensor) -> None:
        scores = logits.cpu().numpy()
        one.chosen = choose(
            scores,
            temperature_milli=one.payload.temperature_milli,
            top_p_milli=one.payload.top_p_milli,
            seed=one.ticket.job.seed,
            position=one.stream.count,
        )
        one.trace.chose(one.chosen)
        one.finish = one.stream.feed(one.chosen, self._told(one, scores))

    def _told(self, one: Answering, scores: npt.NDArray[np.float32]) -> dict[str, Any] | None:
        """What is told of the chosen token, if that is asked for."""
        if one.payload.logprobs is None or one.chosen is None:
            return None
        own, *top = (
            {"id": token, "token": self._tokenizer.spelled(token), "logprob_micro": micro}
            for token, micro in logprobs(scores, one.chosen, one.payload.logprobs)
        )
        return {**own, "top": top}

    def _send(self) -> None:
        for one in self._running:
            if one.finish:
                self._end(one, one.finish)
            elif chunk := one.stream.due():
                one.ticket.put(chunk)
        self._running = [one for one in self._running if _goes_on(one)]

    def _end(self, one: Answering, finish: Finish) -> None:
        one.finish = finish
        for chunk in one.stream.close(finish):
            one.ticket.put(chunk)
        one.ticket.put(
            Outcome(
                finish=finish,
                units_in=one.units_in,
                units_out=one.stream.count,
                reading=one.ticket.tally.reading(self._meter.method),
                max_tokens=one.max_tokens,
                trace=one.trace.end(),
            )
        )


def _goes_on(one: Answering) -> bool:
    return one.finish is None and not one.ticket.cancelled

"""One job, from claim to receipt: open → infer → meter → sign → spool → deliver.

open     claim the order under a worker lease; nobody else may finish it
infer    run the model on from the chunks an earlier attempt left
meter    units, device time and energy, as the engine read them
sign     one receipt, inside the transaction that stores it
spool    every chunk and the receipt are in the ledger before anybody hears of them
deliver  the daemon sends what the ledger holds until the gateway confirms it

A task only starts a job. The engine's thread hands over what comes of it, and the spool's thread stores and
signs: no thread waits for a job, and the engine waits for no disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from marketplace.protocol.annex import Profile, Sampling
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace, WattError, attempted
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.payloads import ChatPayload, Payload, parse_payload, seed_of
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.inference.engine import Chunk, Engine, EngineJob, Outcome, Running
from worker.inference.errors import EngineFailed
from worker.ledger import HeldChunk, HeldOrder, HeldReceipt, Ledger, NewChunk, TakenUp
from worker.metering import Stats
from worker.receipts import (
    ChunkSpool,
    Hold,
    LeaseKeeper,
    LeaseLapsed,
    ReceiptDesk,
    Slots,
    Work,
    failed_work,
    note_signed,
)

# What a job is called that was cut before anything of it was delivered.
_CUT: Final = {"cancelled": "cancelled", "deadline": "deadline_passed"}
_CHAT: Final = "chat"

log = get_logger(__name__)


class EnginePool(Protocol):
    """The engines of this process."""

    def engine_for(self, model_id: bytes) -> Engine:
        """Engine of a model. Raises `BadRequest` when none serves it."""

    def units_in(self, payload: Payload) -> int | None:
        """Input units a job would be billed for; None when it is not known now. Raises `BadRequest`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteLimits:
    """Bounds of one job.

    Attributes:
        deadline_margin_ms: the engine stops this long before the order's deadline.
        max_attempts: claims after which an order counts as poison; it then ends unpaid.
        slots: jobs at once.
    """

    deadline_margin_ms: int = 250
    max_attempts: int = 3
    slots: int = 8

    @property
    def ahead(self) -> int:
        """Jobs beyond the slots that are claimed already: an engine that ends one goes on with the next."""
        return self.slots // 8


@dataclass(slots=True, eq=False, kw_only=True)
class Run:
    """A job this process works on. `ended` is set by the first that ends it; what comes later is dropped."""

    order: HeldOrder
    hold: Hold
    started_at_ms: int
    payload: Payload | None = None
    seed: int = 0
    profile: Profile = field(default_factory=Profile)
    running: Running | None = None
    chunks: int = 0
    token_ids: list[int] = field(default_factory=list)
    cancelled: bool = False
    ended: bool = False

    @property
    def task(self) -> str:
        """What is asked; empty before the payload is read."""
        return self.payload.task if self.payload else ""

    def cancel(self) -> None:
        """Ends it at the engine's next step with what it has; if it is not there yet, once it is."""
        self.cancelled = True
        if self.running is not None:
            self.running.stop()

    def drop(self) -> None:
        """Has the engine let go of it."""
        self.ended = True
        if self.running is not None:
            self.running.drop()


class Executor:
    """Runs accepted orders. Safe to call from many threads."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        desk: ReceiptDesk,
        engines: EnginePool,
        leases: LeaseKeeper,
        spool: ChunkSpool,
        limits: ExecuteLimits,
        now_ms: Callable[[], int],
        stats: Stats | None = None,
    ) -> None:
        self._ledger = ledger
        self._desk = desk
        self._engines = engines
        self._leases = leases
        self._spool = spool
        self._limits = limits
        self._now_ms = now_ms
        self._stats = stats or Stats()
        self._slots = Slots(limits.slots + limits.ahead)
        # A job has its slot until its engine is done with it; the next need not wait for the disk.
        self._runs: dict[bytes, Run] = {}
        self._seated: dict[bytes, Run] = {}
        spool.on_lost = self._lost
        leases.on_cancel = self.cancel

    def execute(self, order_hash: bytes) -> None:
        """Starts an order once there is a slot; it goes on to its receipt by itself.

        A redelivered task finds the order ended or taken, and does nothing.

        Raises:
            Stopping: this process takes on no more jobs; nothing was claimed.
        """
        self._slots.enter()
        try:
            taken = self._open(order_hash)
        except LostRace as lost:
            self._slots.leave()
            log.info(Log.RACE_LOST, order_hash=to_hex(order_hash), reason=lost.detail)
            return
        except BaseException:
            self._slots.leave()
            raise
        order = taken.order
        run = Run(order=order, hold=self._leases.hold(order), started_at_ms=self._now_ms())
        run.cancelled = taken.cancelled
        self._runs[order_hash] = self._seated[order_hash] = run
        log.info(
            Log.JOB_LEASED, order_hash=to_hex(order_hash), trace_id=order.trace_id, attempt=order.attempts
        )
        broke = attempted(partial(self._start, run, taken.chunks))
        if broke is not None:
            # Whatever it was, the order must end in a receipt.
            self._end(run, broke)

    def cancel(self, order_hash: bytes) -> None:
        """Ends a job at its engine's next step with what it has. Unknown orders are passed over."""
        run = self._runs.get(order_hash)
        if run is not None:
            run.cancel()

    @property
    def running(self) -> int:
        """Jobs that have an engine, or wait for one."""
        return self._slots.taken

    def close(self) -> None:
        """Takes on no more jobs. Idempotent."""
        self._slots.close()

    def hand_over(self, *, timeout_seconds: float) -> int:
        """Lets jobs end for a while, then leaves the rest, to be resumed elsewhere; gives their number."""
        self.close()
        self._slots.empty(timeout_seconds=timeout_seconds)
        left = [run for run in list(self._seated.values()) if not run.ended]
        for run in left:
            run.drop()
        # What was handed to the spool before is still stored under our lease.
        self._spool.flush()
        for run in left:
            self._ledger.orders.give_back(self._leases.worker, run.order.order_hash)
            log.info(
                Log.JOB_HANDED_OVER, order_hash=to_hex(run.order.order_hash), trace_id=run.order.trace_id
            )
            self._leave(run)
        return len(left)

    def _open(self, order_hash: bytes) -> TakenUp:
        if order_hash in self._runs:
            # A lease that is renewed late looks free to a second task; here the job goes on.
            raise LostRace(ErrorCode.LEASE_LOST, "this process works on it already")
        now_ms = self._now_ms()
        until_ms = now_ms + self._leases.lease_ms
        # A job that waits for an engine can wait for company at the disk first.
        hurry = self._slots.taken <= self._limits.slots
        return self._spool.take_up(order_hash, now_ms=now_ms, until_ms=until_ms, hurry=hurry)

    def _start(self, run: Run, kept: Sequence[HeldChunk]) -> None:
        order, now_ms = run.order, run.started_at_ms
        stop_at_ms = order.deadline_ms - self._limits.deadline_margin_ms
        if order.attempts > self._limits.max_attempts:
            return self._end(run, self._nothing(run, "crashed"))
        if now_ms >= stop_at_ms:
            return self._end(run, self._nothing(run, "deadline_passed"))
        run.hold.check(now_ms)
        payload = parse_payload(order.payload)
        run.payload = payload
        run.seed = seed_of(payload, order.order_hash)
        resume = tuple(Chunk(index=one.index, body=one.body, token_ids=one.token_ids) for one in kept)
        run.chunks = len(resume)
        run.token_ids = [token for chunk in resume for token in chunk.token_ids]
        job = EngineJob(id=order.job_id, payload=payload, seed=run.seed, stop_at_ms=stop_at_ms, resume=resume)
        engine = self._engines.engine_for(from_hex(payload.model, 32))
        run.profile = engine.profile
        run.running = engine.submit(job, partial(self._hear, run))
        if run.ended:
            run.running.drop()
        elif run.cancelled:
            # Asked for before there was a job to stop.
            run.running.stop()
        return None

    def _hear(self, run: Run, event: Chunk | Outcome | Exception) -> None:
        """On the engine's thread: passes on, and never waits."""
        if run.ended:
            return
        if not isinstance(event, Chunk):
            self._end(run, self._work(run, event) if isinstance(event, Outcome) else event)
            return
        now_ms = self._now_ms()
        try:
            run.hold.check(now_ms)
        except LostRace as lost:
            self._end(run, lost)
            return
        if run.chunks == 0:
            self._stats.first_token(run.task, now_ms - run.order.accepted_at_ms)
        run.chunks += 1
        run.token_ids += event.token_ids
        self._stats.wrote(len(event.token_ids))
        self._spool.put(
            NewChunk(
                order_hash=run.order.order_hash,
                index=event.index,
                body=event.body,
                token_ids=event.token_ids,
            )
        )

    def _end(self, run: Run, how: Work | Exception) -> None:
        """Ends a job behind its last chunk; the first word counts."""
        if run.ended:
            return
        run.drop()
        self._rise(run)
        if isinstance(how, Work):
            maker = partial(self._desk.maker, run.order, how)
            self._spool.end(run.order.order_hash, maker, partial(self._signed, run, how))
        else:
            self._spool.then(run.order.order_hash, partial(self._conclude, run, how))

    def _signed(self, run: Run, work: Work, receipt: HeldReceipt | Exception) -> None:
        """On the spool's thread: the receipt is stored, or somebody else may end the order."""
        if isinstance(receipt, HeldReceipt):
            note_signed(run.order, receipt, work)
            self._stats.ended(run.task, work)
        else:
            log.info(Log.RACE_LOST, order_hash=to_hex(run.order.order_hash), reason=str(receipt))
        self._leave(run)

    def _conclude(self, run: Run, how: Exception) -> None:
        """On the spool's thread: ends the order unpaid, or leaves it to others."""
        order_hash, worker = run.order.order_hash, self._leases.worker
        try:
            if isinstance(how, LeaseLapsed):
                self._desk.fail(order_hash, worker, "lease_lapsed")
            elif isinstance(how, EngineFailed):
                # The pool replaces a broken engine; free the order so that the next task need not wait.
                self._note_failure(run.order, how)
                self._ledger.orders.release(worker, order_hash)
            elif isinstance(how, LostRace):
                log.info(Log.RACE_LOST, order_hash=to_hex(order_hash), reason=how.detail)
            else:
                # The caller's making or ours: either way this order ends here, unpaid.
                self._note_failure(run.order, how)
                self._desk.fail(
                    order_hash, worker, how.code.value if isinstance(how, WattError) else "internal"
                )
        except LostRace as lost:
            log.info(Log.RACE_LOST, order_hash=to_hex(order_hash), reason=lost.detail)
        finally:
            self._leave(run)

    def _leave(self, run: Run) -> None:
        self._rise(run)
        self._leases.let_go(run.order.order_hash)
        self._runs.pop(run.order.order_hash, None)

    def _rise(self, run: Run) -> None:
        if self._seated.pop(run.order.order_hash, None) is not None:
            self._slots.leave()

    def _lost(self, order_hash: bytes) -> None:
        """The spool could not store a chunk: somebody else has the order, or the disk is full."""
        run = self._runs.get(order_hash)
        if run is not None:
            self._end(
                run, LostRace(ErrorCode.LEASE_LOST, "a chunk was not stored: the worker lease was lost")
            )

    def _work(self, run: Run, outcome: Outcome) -> Work:
        now_ms = self._now_ms()
        unread = run.chunks == 0 or (run.task == _CHAT and outcome.units_out == 0)
        if outcome.finish in _CUT and unread:
            # Nothing was delivered, so nothing is owed, not even the price of a job.
            return failed_work(_CUT[outcome.finish], started_at_ms=run.started_at_ms, finished_at_ms=now_ms)
        reading = outcome.reading
        return Work(
            finish=outcome.finish,
            failed=False,
            started_at_ms=run.started_at_ms,
            finished_at_ms=now_ms,
            units_in=outcome.units_in,
            units_out=outcome.units_out,
            energy_millijoules=reading.energy_millijoules,
            energy_method=reading.energy_method,
            device_microseconds=reading.device_microseconds,
            profile=run.profile,
            sampling=_sampling(run.payload, outcome),
            token_ids=tuple(run.token_ids),
            trace=outcome.trace,
            seed=run.seed,
        )

    def _nothing(self, run: Run, reason: str) -> Work:
        return failed_work(reason, started_at_ms=run.started_at_ms, finished_at_ms=run.started_at_ms)

    def _note_failure(self, order: HeldOrder, error: Exception) -> None:
        blame = "caller" if isinstance(error, BadRequest) else "node"
        log.warning(
            Log.JOB_ENDED,
            order_hash=to_hex(order.order_hash),
            trace_id=order.trace_id,
            blame=blame,
            error=type(error).__name__,
        )


def _sampling(payload: Payload | None, outcome: Outcome) -> Sampling | None:
    if not isinstance(payload, ChatPayload):
        return None
    return Sampling(
        temperature_milli=payload.temperature_milli,
        top_p_milli=payload.top_p_milli,
        max_tokens=outcome.max_tokens,
    )

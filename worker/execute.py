"""One job, from claim to receipt: open → infer → meter → sign → spool → deliver.

open     claim the order under a worker lease; nobody else may finish it
infer    run the model on from the chunks an earlier attempt left
meter    units, device time and energy, as the engine read them
sign     one receipt, inside the transaction that stores it
spool    every chunk and the receipt are in the ledger before anybody hears of them
deliver  the daemon sends what the ledger holds until the gateway confirms it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from marketplace.protocol.errors import BadRequest, LostRace, WattError
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.payloads import parse_payload, seed_of
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.inference.engine import Chunk, Engine, EngineJob
from worker.inference.errors import EngineFailed
from worker.ledger import HeldOrder, Ledger, NewChunk
from worker.receipts import ChunkSpool, Hold, LeaseKeeper, LeaseLapsed, ReceiptDesk, Work

log = get_logger(__name__)


class EnginePool(Protocol):
    """The engines of this process."""

    def engine_for(self, model_id: bytes) -> Engine:
        """Engine of a model. Raises `BadRequest` when none serves it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteLimits:
    """Bounds of one job.

    Attributes:
        deadline_margin_ms: the engine stops this long before the order's deadline.
        max_attempts: claims after which an order counts as poison; it then ends unpaid.
    """

    deadline_margin_ms: int = 250
    max_attempts: int = 3


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
        announce: Callable[[bytes], None],
        limits: ExecuteLimits,
        now_ms: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._desk = desk
        self._engines = engines
        self._leases = leases
        self._spool = spool
        self._announce = announce
        self._limits = limits
        self._now_ms = now_ms

    def execute(self, order_hash: bytes) -> None:
        """Brings an order to its receipt. A redelivered task finds it ended or taken, and does nothing.

        Raises:
            EngineFailed: the engine broke down; the order stays unfinished, for a fresh process.
        """
        try:
            order = self._open(order_hash)
            with self._leases.holding(order) as hold:
                self._finish(order, hold)
        except LostRace as lost:
            log.info(Log.RACE_LOST, order_hash=to_hex(order_hash), reason=lost.detail)
            return
        except EngineFailed:
            # The pool replaces a broken engine; free the order so that the next task need not wait.
            self._ledger.orders.release(self._leases.worker, order_hash)
            raise
        finally:
            self._spool.forget(order_hash)
        self._announce(order_hash)

    def _open(self, order_hash: bytes) -> HeldOrder:
        now_ms = self._now_ms()
        return self._ledger.orders.claim(
            order_hash, self._leases.worker, now_ms=now_ms, until_ms=now_ms + self._leases.lease_ms
        )

    def _finish(self, order: HeldOrder, hold: Hold) -> None:
        worker = self._leases.worker
        log.info(
            Log.JOB_LEASED,
            order_hash=to_hex(order.order_hash),
            trace_id=order.trace_id,
            attempt=order.attempts,
        )
        try:
            self._desk.sign(order.order_hash, worker, self._infer(order, hold))
        except LeaseLapsed:
            self._desk.fail(order.order_hash, worker, "lease_lapsed")
        except (LostRace, EngineFailed):
            raise
        except WattError as error:
            # The caller's making or ours: either way this order ends here, unpaid.
            self._note_failure(order, error)
            self._desk.fail(order.order_hash, worker, error.code.value)
        except Exception as error:  # noqa: BLE001  # loop edge: whatever broke, the order must end in a receipt
            self._note_failure(order, error)
            self._desk.fail(order.order_hash, worker, "internal")

    def _infer(self, order: HeldOrder, hold: Hold) -> Work:
        started_at_ms = self._now_ms()
        stop_at_ms = order.deadline_ms - self._limits.deadline_margin_ms
        if order.attempts > self._limits.max_attempts:
            return self._nothing("crashed", started_at_ms)
        if started_at_ms >= stop_at_ms:
            return self._nothing("deadline_passed", started_at_ms)
        hold.check(started_at_ms)
        payload = parse_payload(order.payload)
        engine = self._engines.engine_for(from_hex(payload.model, 32))
        seed = seed_of(payload, order.order_hash)
        resume = tuple(
            Chunk(index=kept.index, body=kept.body, token_ids=kept.token_ids)
            for kept in self._ledger.chunks.of(order.order_hash)
        )
        job = EngineJob(id=order.job_id, payload=payload, seed=seed, stop_at_ms=stop_at_ms, resume=resume)
        outcome = engine.run(job, lambda chunk: self._keep(order, hold, chunk))
        profile, reading = engine.profile, outcome.reading
        return Work(
            finish=outcome.finish,
            failed=False,
            started_at_ms=started_at_ms,
            finished_at_ms=self._now_ms(),
            units_in=outcome.units_in,
            units_out=outcome.units_out,
            energy_millijoules=reading.energy_millijoules,
            energy_method=reading.energy_method,
            device_microseconds=reading.device_microseconds,
            engine=profile.engine,
            torch=profile.torch,
            dtype=profile.dtype,
            seed=seed,
        )

    def _keep(self, order: HeldOrder, hold: Hold, chunk: Chunk) -> None:
        hold.check(self._now_ms())
        self._spool.put(
            NewChunk(
                order_hash=order.order_hash, index=chunk.index, body=chunk.body, token_ids=chunk.token_ids
            )
        )

    def _nothing(self, reason: str, now_ms: int) -> Work:
        return Work(finish=reason, failed=True, started_at_ms=now_ms, finished_at_ms=now_ms)

    def _note_failure(self, order: HeldOrder, error: Exception) -> None:
        blame = "caller" if isinstance(error, BadRequest) else "node"
        log.warning(
            Log.JOB_ENDED,
            order_hash=to_hex(order.order_hash),
            trace_id=order.trace_id,
            blame=blame,
            error=type(error).__name__,
        )

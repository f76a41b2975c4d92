"""The infer process: executor, leases, spool and counters around loaded engines."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.signing import Signer
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.execute import EnginePool, ExecuteLimits, Executor
from worker.ledger import Ledger
from worker.metering import DeclaredSource, EnergyBook, Stats, open_book
from worker.metering.sensors import processor_celsius, resident_bytes
from worker.node.counting import CountServer, count_socket
from worker.node.daemon import worker_prefix
from worker.node.facts import INFER
from worker.node.live import LiveFile
from worker.node.offers import ServedModel
from worker.receipts import ChunkSpool, LeaseKeeper, ReceiptDesk
from worker.receipts.hints import CancelListener, publisher
from worker.settings import NodeSettings
from worker.watchdog import Watchdog

if TYPE_CHECKING:
    from worker.inference.engine import Upstream
    from worker.inference.fleet import Fleet, Version
    from worker.models import ModelDir

# A thread that wants the interpreter asks for it after this long. Storing and signing take less, so they are
# done in one go instead of trading turns with the engine.
_SWITCH_SECONDS: Final = 0.02
_TWICE: Final = "a model is listed twice; one node offers it for one task"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engines:
    """The loaded engines of an infer process, what they serve, and how long their slowest step takes."""

    pool: EnginePool
    served: tuple[ServedModel, ...]
    close: Callable[[], None]
    energy: EnergyBook | None = None
    watch: Callable[[Callable[[Sequence[ServedModel]], None]], None] = lambda _report: None
    step_seconds: Callable[[], float] = lambda: 0.0


class InferProcess:
    """Runs orders on engines, from `start` to `stop`."""

    def __init__(
        self,
        settings: NodeSettings,
        ledger: Ledger,
        queue: str,
        *,
        engines: Engines,
        signer: Signer,
        domain: Domain,
        now_ms: Callable[[], int],
    ) -> None:
        """`queue` is the prefix of the node's queues."""
        broker = settings.broker_url.get_secret_value() if settings.broker_url else ""
        worker = worker_prefix(INFER, os.getpid()) + secrets.token_hex(4)
        self._hand_over_seconds = settings.hand_over_ms / 1000
        self._leases = LeaseKeeper(ledger, worker, now_ms, lease_ms=settings.worker_lease_ms)
        self._spool = ChunkSpool(ledger, worker, publisher(broker, queue), every_ms=settings.publish_every_ms)
        stats = Stats()
        self.executor = Executor(
            ledger=ledger,
            desk=ReceiptDesk(ledger, signer, domain, now_ms),
            engines=engines.pool,
            leases=self._leases,
            spool=self._spool,
            limits=ExecuteLimits(
                deadline_margin_ms=settings.deadline_margin_ms,
                max_attempts=settings.max_attempts,
                slots=settings.slots,
            ),
            now_ms=now_ms,
            stats=stats,
        )
        self._watchdog = Watchdog(engines.step_seconds, settings.stuck_seconds)
        self._cancels = CancelListener(broker, queue, self.executor.cancel)
        counters = Counters(stats, engines.energy or EnergyBook(DeclaredSource()), self.executor, self._spool)
        self._live = LiveFile(Path(settings.data_dir) / "run" / "infer.json", counters.read, now_ms)
        self._count = CountServer(count_socket(Path(settings.data_dir)), engines.pool.units_in)

    def start(self) -> None:
        """Starts leases, spool, counters and answers about counts."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        if hasattr(os, "sched_setscheduler"):
            # This thread, and those started from here on, push no engine off its core when they wake.
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        self._leases.start()
        self._spool.start()
        self._cancels.start()
        self._live.start()
        self._count.start()
        self._watchdog.start()

    def stop(self) -> None:
        """Lets jobs end for a moment, hands the rest over, and stops. Idempotent."""
        self._count.stop()
        left = self.executor.hand_over(timeout_seconds=self._hand_over_seconds)
        log.info(Log.STOPPED, name="executor", handed_over=left)
        self._watchdog.stop()
        self._cancels.stop()
        self._spool.stop()
        self._leases.stop()
        self._live.stop()


class Counters:
    """Everything an infer process tells of itself, once a second."""

    def __init__(self, stats: Stats, energy: EnergyBook, executor: Executor, spool: ChunkSpool) -> None:
        self._stats, self._energy, self._executor, self._spool = stats, energy, executor, spool
        self._tokens = 0
        self._read_at = time.monotonic()

    def read(self) -> dict[str, Any]:
        """Counters since the start, and rates since the last reading."""
        found = self._stats.read()
        now = time.monotonic()
        rate = (found["tokens_written"] - self._tokens) / max(1e-3, now - self._read_at)
        self._tokens, self._read_at = found["tokens_written"], now
        charged, idle = self._energy.balance()
        gpu = self._energy.gpu
        return found | {
            "pid": os.getpid(),
            "running": self._executor.running,
            "batch": self._energy.batch if self._executor.running else 0,
            "tokens_per_second": round(rate, 2),
            "cpu_microseconds": {
                "all": time.process_time_ns() // 1000,
                "storing": self._spool.storing_nanoseconds // 1000,
                "ending": self._spool.ending_nanoseconds // 1000,
            },
            "energy_method": self._energy.method,
            "charged_microjoules": charged,
            "idle_microjoules": idle,
            "memory_bytes": {"cpu": resident_bytes()} | ({"gpu": gpu.memory_bytes()} if gpu else {}),
            "celsius": {"cpu": processor_celsius()} | ({"gpu": gpu.celsius()} if gpu else {}),
        }


def load_engines(settings: NodeSettings) -> Engines:
    """Loads the models of the settings; fetches what is not there yet.

    Raises:
        ModelError: a model that cannot be used.
        EngineFailed: a model that could not be loaded.
    """
    # torch belongs to infer processes alone.
    from worker.inference import host, pool  # noqa: PLC0415
    from worker.inference.device import gpu_uuid  # noqa: PLC0415
    from worker.inference.engine import EngineSettings  # noqa: PLC0415
    from worker.inference.fleet import Fleet  # noqa: PLC0415
    from worker.models import offered_as  # noqa: PLC0415
    from worker.models.shelf import Shelf  # noqa: PLC0415

    def say(text: str) -> None:
        log.info(Log.STARTED, name="models", step=text)

    options = EngineSettings(
        threads=settings.torch_threads,
        slots=settings.slots,
        # Engines of several models share what is free; each is loaded after the one before it.
        memory_percent=max(1, settings.memory_percent // max(1, len(settings.models))),
        milliwatts_per_core=settings.milliwatts_per_core,
    )
    energy = open_book(milliwatts_per_core=settings.milliwatts_per_core, gpu=gpu_uuid(options.device))
    tasks = {price.model: price.task for price in settings.models}
    if len(tasks) < len(settings.models):
        raise BadRequest(ErrorCode.INVALID_REQUEST, _TWICE)
    servers = settings.upstreams()
    upstreams: dict[bytes, Upstream] = {}

    owner: dict[bytes, str] = {}

    def made_for(source: str, model: ModelDir) -> ModelDir:
        if owner.setdefault(model.model_id, source) != source:
            raise BadRequest(ErrorCode.INVALID_REQUEST, f"{_TWICE}: {source} is {owner[model.model_id]}")
        if source in servers:
            upstreams[model.model_id] = servers[source]
        return offered_as(model, tasks.get(source, ""))

    build = pool.engine_builder(options, now_ms=now_ms, energy=energy, upstreams=upstreams)
    fleet = Fleet(
        ledger=Ledger(settings.ledger),
        shelf=Shelf(settings.models_home, say),
        pool=pool.EnginePool([], build, memory_bytes=settings.model_memory_mib << 20),
        priced=[price.model for price in settings.models],
        pinned=frozenset(price.model for price in settings.models if price.pinned),
        now_ms=now_ms,
        made_for=made_for,
    )
    engines = started(fleet, settings.rehash_seconds, energy)
    return replace(engines, step_seconds=host.longest_step_seconds)


def started(fleet: Fleet, rehash_seconds: int, energy: EnergyBook) -> Engines:
    """The engines of a fleet, loaded. Raises as `load_engines`."""

    def served(versions: Sequence[Version]) -> tuple[ServedModel, ...]:
        return tuple(ServedModel(**asdict(version)) for version in versions)

    def watch(report: Callable[[Sequence[ServedModel]], None]) -> None:
        fleet.watch(lambda versions: report(served(versions)), rehash_seconds=rehash_seconds)

    fleet.start()
    versions = served(fleet.versions())
    return Engines(pool=fleet.pool, served=versions, close=fleet.close, energy=energy, watch=watch)


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000

"""Where a node's processes are put together.

python -m worker.main daemon                                   the daemon; it starts the two below
celery -A worker.main worker -Q <queue>.infer --pool threads   runs models; the only one with torch
celery -A worker.main worker -Q <queue>.settle --pool solo     owns the settler's key
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery, signals

from marketplace.protocol.errors import BadRequest, Broken, ErrorCode, WattError
from marketplace.protocol.signing import Signer
from marketplace.telemetry import logs
from marketplace.telemetry.names import Log
from worker import tasks
from worker.ledger import Ledger
from worker.ledger.task_names import infer_queue, settle_queue
from worker.node.children import end_with_parent
from worker.node.daemon import Daemon
from worker.node.facts import INFER, SETTLE, Notes
from worker.node.keys import ENCRYPTION, SETTLER, SIGNING, KeyRing
from worker.node.link import Identity
from worker.node.loops import LoopTimes
from worker.node.offers import Price
from worker.node.parts import DaemonOptions
from worker.node.queue import configure
from worker.node.rules import Terms
from worker.process import Engines, InferProcess, load_engines, now_ms
from worker.settings import NOT_PRICES, NodeSettings
from worker.settle.limits import SettleLimits

if TYPE_CHECKING:
    from marketplace.chain.client import ChainClient
    from marketplace.chain.deployment import Deployment
    from worker.settle.step import Settler

log = logs.get_logger(__name__)


LoadEngines = Callable[[NodeSettings], Engines]


def main(arguments: list[str]) -> int:
    """Runs `daemon`; gives the exit status."""
    if arguments != ["daemon"]:
        sys.stderr.write((__doc__ or "") + "\n")
        return 2
    return run_daemon(NodeSettings())


def run_daemon(settings: NodeSettings) -> int:
    """Runs a node until it is stopped; gives the exit status."""
    logs.set_up(settings.log_level)
    try:
        daemon = build_daemon(settings)
        # What is there by now stays; looking through it for garbage would stop every stream for 0.15 s.
        gc.freeze()
        asyncio.run(_run(daemon))
    except WattError as error:
        return _said_why(error)
    return 0


def build_daemon(settings: NodeSettings, *, worker_app: str = "worker.main") -> Daemon:
    """The daemon of a node; nothing is started yet.

    Args:
        settings: the node's settings.
        worker_app: module of the Celery app the workers run.

    Raises:
        BadRequest: settings that cannot work.
        Broken: an unreadable deployment file or ledger.
    """
    # web3 takes a second to import; infer processes never need it.
    from marketplace.chain.client import ChainClient  # noqa: PLC0415
    from marketplace.chain.deployment import Deployment  # noqa: PLC0415

    if not settings.models:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            'no models to sell: set WATT_NODE_MODELS=[{"model":"all-minilm-l6-v2","price_per_job_atoms":9}]',
        )
    deployment = Deployment.load(settings.deployment_path)
    chain = ChainClient(settings.rpc_url, deployment)
    ledger, keys = Ledger(settings.ledger), _keys(settings)
    signer, encryption_secret = keys.signer(SIGNING), keys.secret(ENCRYPTION)
    return Daemon(
        options=_options(settings, deployment, _queue_name(settings, signer.address), worker_app),
        ledger=ledger,
        chain=chain,
        identity=lambda node_id: Identity(
            node_id=node_id,
            signer=signer,
            domain=deployment.domain,
            encryption_secret=encryption_secret,
        ),
        terms=lambda node_id, epoch: Terms(
            node_id=node_id,
            epoch=epoch,
            domain=deployment.domain,
            max_job_ms=settings.max_job_seconds * 1000,
            max_session_exposed_atoms=settings.max_unacknowledged_atoms,
            max_node_exposed_atoms=settings.max_total_unacknowledged_atoms,
            max_unfinished=settings.slots + settings.queue_limit,
        ),
        enrol=lambda: _enrol(settings, deployment, chain, ledger, keys),
        now_ms=now_ms,
        random=secrets.token_bytes,
    )


def build_app(settings: NodeSettings, load: LoadEngines | None = None) -> Celery:
    """Celery app of the workers; engines are loaded when an infer worker starts, never before.

    Args:
        settings: the node's settings.
        load: loads the engines; by default those of the models in the settings.
    """
    if settings.broker_url is None:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, "a worker needs WATT_NODE_BROKER_URL; the daemon sets it for its own"
        )
    app = Celery("wattline-node", broker=settings.broker_url.get_secret_value(), set_as_current=False)
    configure(app)
    process = WorkerProcess(settings, load or load_engines)
    tasks.register(app, execute=process.execute, settle=process.settle)
    tasks.prepare(app, start=process.start, asked=process.close, stop=process.stop)

    def set_up_logging(**_: object) -> None:
        logs.set_up(settings.log_level)

    signals.setup_logging.connect(set_up_logging, weak=False)
    return app


class WorkerProcess:
    """What one Celery worker holds: an executor, or a settler, by the queue it reads."""

    def __init__(self, settings: NodeSettings, load: LoadEngines) -> None:
        self._settings = settings
        self._load = load
        self._ledger: Ledger | None = None
        self._engines: Engines | None = None
        self._infer: InferProcess | None = None
        self._settler: Settler | None = None

    def start(self, queues: set[str]) -> None:
        """Prepares for the tasks of these queues. Raises when the process cannot do them."""
        end_with_parent()
        self._ledger = Ledger(self._settings.ledger)
        queue = _queue_of(self._settings, queues)
        if infer_queue(queue) in queues:
            self._start_infer(self._ledger, queue)
        if settle_queue(queue) in queues:
            self._settler = _settler(self._settings, self._ledger)
            Notes(self._ledger).report_ready(SETTLE, os.getpid())

    def close(self) -> None:
        """Takes on no more jobs. Idempotent."""
        if self._infer is not None:
            self._infer.executor.close()

    def stop(self) -> None:
        """Ends or hands over running jobs, then stops engines and threads. Idempotent."""
        if self._infer is not None:
            self._infer.stop()
        if self._engines is not None:
            self._engines.close()

    def execute(self, order_hash: bytes) -> None:
        """Task `worker.execute`."""
        if self._infer is None:
            raise Broken(ErrorCode.NOT_READY, "this process does not read the infer queue")
        self._infer.executor.execute(order_hash)

    def settle(self, everything: bool, request: str) -> None:  # noqa: FBT001 - a message's fields
        """Task `worker.settle`; a request is answered whatever came of it."""
        if self._settler is None or self._ledger is None:
            raise Broken(ErrorCode.NOT_READY, "this process does not read the settle queue")
        try:
            self._settler.run(everything=everything)
        except WattError as error:
            log.warning(Log.CHAIN_TROUBLE, code=error.code.value, reason=error.detail)
        finally:
            if request:
                Notes(self._ledger).report_settled(request)

    def _start_infer(self, ledger: Ledger, queue: str) -> None:
        settings = self._settings
        deployment = _deployment(settings)
        self._engines = self._load(settings)
        self._infer = InferProcess(
            settings,
            ledger,
            queue,
            engines=self._engines,
            signer=_keys(settings).signer(SIGNING),
            domain=deployment.domain,
            now_ms=now_ms,
        )
        self._infer.start()
        notes = Notes(ledger)
        notes.report_ready(INFER, os.getpid(), self._engines.served)
        self._engines.watch(lambda served: notes.report_ready(INFER, os.getpid(), served))


def warm_up() -> None:
    """Imports what an infer worker needs; called in a spare one before it is told to start."""
    from worker.inference.warm import import_for  # noqa: PLC0415

    settings = NodeSettings()
    import_for((price.model for price in settings.models), settings.models_home)


def _said_why(error: WattError) -> int:
    # The sentence is for the operator; a traceback would bury it.
    log.error(Log.STOPPED, name="daemon", code=error.code.value, reason=error.detail, hint=error.spec.hint)
    return 1


async def _run(daemon: Daemon) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    await daemon.run()


def _options(settings: NodeSettings, deployment: Deployment, queue: str, worker_app: str) -> DaemonOptions:
    return DaemonOptions(
        data_dir=settings.data_dir,
        gateways=settings.gateways,
        queue=queue,
        broker_url=settings.broker_url.get_secret_value() if settings.broker_url else None,
        child_settings=settings.environment(),
        prices={price.model: Price(**price.model_dump(exclude={*NOT_PRICES})) for price in settings.models},
        slots=settings.slots,
        offer_valid_seconds=settings.offer_valid_seconds,
        grace_seconds=deployment.grace_seconds,
        session_max_age_ms=settings.session_max_age_ms,
        spare_worker=settings.spare_worker,
        metrics_port=settings.metrics_port,
        start_seconds=settings.start_seconds,
        stop_seconds=settings.stop_seconds,
        drain_seconds=settings.drain_seconds,
        poll_ms=settings.poll_ms,
        times=LoopTimes(
            reconcile_ms=settings.reconcile_every_ms,
            resend_ms=settings.task_resend_ms,
            settle_ms=settings.settle_every_ms,
        ),
        worker_app=worker_app,
    )


def _enrol(
    settings: NodeSettings, deployment: Deployment, chain: ChainClient, ledger: Ledger, keys: KeyRing
) -> tuple[int, int]:
    from worker.node.registration import Registrar  # noqa: PLC0415

    registrar = Registrar(
        chain=chain,
        deployment=deployment,
        journal=ledger.transactions,
        owner=Signer(settings.owner_key.get_secret_value()) if settings.owner_key else None,
        keys=keys.public(),
        now_ms=now_ms,
    )
    node_id, state = registrar.ensure(
        Notes(ledger).node_id, stake_atoms=settings.stake_atoms, uri=settings.uri
    )
    return node_id, state.epoch


def _settler(settings: NodeSettings, ledger: Ledger) -> Settler:
    from worker.settle.build import build_settler  # noqa: PLC0415

    node_id = Notes(ledger).node_id
    if node_id is None:
        raise Broken(ErrorCode.NOT_READY, "this node is not registered yet; start its daemon first")
    limits = SettleLimits(
        node_id=node_id,
        policy=settings.policy,
        collect_min_atoms=settings.collect_min_atoms,
        claim_min_atoms=settings.claim_min_atoms,
        claim_margin_seconds=settings.claim_margin_seconds,
    )
    return build_settler(
        ledger=ledger,
        rpc_url=settings.rpc_url,
        deployment=_deployment(settings),
        signer=_keys(settings).signer(SETTLER),
        limits=limits,
        confirmations=settings.confirmations,
        now_ms=now_ms,
    )


def _deployment(settings: NodeSettings) -> Deployment:
    from marketplace.chain.deployment import Deployment  # noqa: PLC0415

    return Deployment.load(settings.deployment_path)


def _keys(settings: NodeSettings) -> KeyRing:
    return KeyRing(settings.data_dir / "keys", settings.given_keys(), secrets.token_bytes)


def _queue_name(settings: NodeSettings, signer: str) -> str:
    return settings.queue or f"watt-{signer[2:12].lower()}"


def _queue_of(settings: NodeSettings, queues: set[str]) -> str:
    # By the names it was started with: the settle process need not hold the signing key.
    if settings.queue:
        return settings.queue
    named = [name.removesuffix(end) for name in queues for end in (".infer", ".settle") if name.endswith(end)]
    if not named:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, "start this worker with -Q <queue>.infer or <queue>.settle"
        )
    return named[0]


def __getattr__(name: str) -> Any:
    # `celery -A worker.main` asks for `app`; built then, from the environment, and not on import.
    if name == "app":
        return build_app(NodeSettings())
    raise AttributeError(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

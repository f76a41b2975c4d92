"""The daemon: from a registered node to links that are up, and back down in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import Ledger
from worker.ledger.task_names import infer_queue, settle_queue
from worker.node.broker import Broker
from worker.node.children import Child, ChildSpec, child_environment
from worker.node.facts import INFER, SETTLE, Notes, RunningDaemon, write_running
from worker.node.figures import reading, serve
from worker.node.link import Identity, LinkState
from worker.node.loops import every, watch_broker
from worker.node.parts import DaemonOptions, Node, Parts, assemble
from worker.node.queue import TaskQueue
from worker.node.rules import Terms
from worker.receipts.hints import listen
from worker.settle.sessions import ReadsSessions

# Threads that start jobs; a job that runs needs none.
_HANDS: Final = 4
_SPARE_MS: Final = 2_000
_SECRETS: Final = {
    INFER: ("WATT_NODE_OWNER_KEY", "WATT_NODE_SETTLER_KEY", "WATT_NODE_ENCRYPTION_KEY"),
    SETTLE: ("WATT_NODE_OWNER_KEY", "WATT_NODE_SIGNING_KEY", "WATT_NODE_ENCRYPTION_KEY"),
}

log = get_logger(__name__)


class KnowsNode(Protocol):
    """Brings the node onto the chain; gives its id and key epoch."""

    def __call__(self) -> tuple[int, int]:
        """May raise `BadRequest` or `ChainTrouble`."""


class Daemon:
    """One node's daemon. `run` returns once it has stopped in order."""

    def __init__(
        self,
        *,
        options: DaemonOptions,
        ledger: Ledger,
        chain: ReadsSessions,
        identity: Callable[[int], Identity],
        terms: Callable[[int, int], Terms],
        enrol: KnowsNode,
        now_ms: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        """`identity` takes the node's id, `terms` its id and key epoch; `enrol` finds both out."""
        self._options = options
        self._ledger = ledger
        self._chain = chain
        self._identity = identity
        self._terms = terms
        self._enrol = enrol
        self._now_ms = now_ms
        self._random = random
        self._notes = Notes(ledger)
        self._stop = asyncio.Event()
        self.connected: set[str] = set()

    def stop(self) -> None:
        """Asks the daemon to stop in order. Idempotent; safe in a signal handler of the event loop."""
        self._stop.set()

    async def run(self) -> None:
        """Runs until stopped or drained.

        Raises:
            WattError: it could not start; the detail says what to do.
        """
        run_dir = self._options.data_dir / "run"
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one(run_dir / "lock"):
            await asyncio.to_thread(self._notes.clear_drain)
            node_id, epoch = await asyncio.to_thread(self._enrol)
            await asyncio.to_thread(self._notes.set_node_id, node_id)
            async with self._broker() as (broker_url, broker):
                with self._metrics(run_dir / "infer.json") as port:
                    running = RunningDaemon(
                        pid=os.getpid(), broker_url=broker_url, queue=self._options.queue, metrics_port=port
                    )
                    write_running(run_dir / "daemon.json", running)
                    try:
                        await self._serve(node_id, epoch, broker_url, broker)
                    finally:
                        (run_dir / "daemon.json").unlink(missing_ok=True)

    async def _serve(self, node_id: int, epoch: int, broker_url: str, broker: Broker | None) -> None:
        queue = TaskQueue(broker_url, self._options.queue)
        children = {role: self._child(role, broker_url) for role in (INFER, SETTLE)}
        try:
            for child in children.values():
                await child.start()
            for role, child in children.items():
                await self._until_ready(role, child)
            if self._stop.is_set():
                # Asked to stop while starting: nothing was taken on, and nobody is ready to settle.
                return
            parts = self._assemble(node_id, epoch, queue, children[INFER])
            await self._work(parts, children, broker_url, broker)
        finally:
            await asyncio.gather(*(child.stop(grace_seconds=5) for child in children.values()))
            await asyncio.to_thread(queue.close)
            log.info(Log.STOPPED, name="daemon", node_id=node_id)

    async def _until_ready(self, role: str, child: Child) -> None:
        """Waits for a worker, unless the daemon is asked to stop meanwhile."""

        def ready(pid: int) -> bool:
            return self._stop.is_set() or self._notes.ready_pid(role) == pid

        await child.wait_ready(ready, timeout_seconds=self._options.start_seconds)

    async def _work(
        self, parts: Parts, children: Mapping[str, Child], broker_url: str, broker: Broker | None
    ) -> None:
        times = self._options.times
        tasks = [asyncio.create_task(link.run(), name=f"link {url}") for url, link in parts.links.items()]
        tasks += [asyncio.create_task(child.watch(), name=child.spec.name) for child in children.values()]
        tasks += [
            asyncio.create_task(listen(broker_url, self._options.queue, parts.hint), name="hints"),
            asyncio.create_task(every("reconcile", times.reconcile_ms, parts.reconcile), name="reconcile"),
            asyncio.create_task(every("settle", times.settle_ms, parts.settle), name="settle"),
            asyncio.create_task(every("models", times.reconcile_ms, parts.look_at_models), name="models"),
        ]
        if self._options.spare_worker:
            spare = every("spare", _SPARE_MS, lambda: self._keep_spare(children[INFER]))
            tasks.append(asyncio.create_task(spare, name="spare"))
        if broker is not None:
            turn = every("broker", times.reconcile_ms, lambda: watch_broker(broker))
            tasks.append(asyncio.create_task(turn, name="broker"))
        log.info(Log.STARTED, name="daemon", queue=self._options.queue, gateways=len(parts.links))
        try:
            asked_to_drain = await self._until_asked(tasks)
            await self._wind_down(parts, asked_to_drain=asked_to_drain)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_asked(self, tasks: Sequence[asyncio.Task[None]]) -> bool:
        while not self._stop.is_set():
            if await asyncio.to_thread(lambda: self._notes.draining):
                return True
            for task in tasks:
                if task.done() and task.get_name() != "hints":
                    task.result()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._stop.wait()
        return False

    async def _wind_down(self, parts: Parts, *, asked_to_drain: bool) -> None:
        """No new orders; running ones end and are delivered; what is payable is settled."""
        parts.intake.draining = True
        for link in parts.links.values():
            link.beat_now()
        patience = self._options.drain_seconds if asked_to_drain else self._options.stop_seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await asyncio.gather(*(link.delivery.drained() for link in parts.links.values()))
        settled = await parts.trigger.settle_all_and_wait(timeout_seconds=self._options.stop_seconds)
        if not settled:
            log.warning(Log.LOOP_FAILED, loop="settle", reason="not settled in time; the next start goes on")

    def _assemble(self, node_id: int, epoch: int, queue: TaskQueue, infer: Child) -> Parts:
        return assemble(
            Node(
                ledger=self._ledger,
                chain=self._chain,
                identity=self._identity(node_id),
                terms=self._terms(node_id, epoch),
                options=self._options,
                now_ms=self._now_ms,
                random=self._random,
            ),
            queue,
            tasks=lambda: self._served_tasks(infer),
            changed=self._link_changed,
        )

    def _served_tasks(self, infer: Child) -> dict[bytes, str] | None:
        if infer.pid is None or self._notes.ready_pid(INFER) != infer.pid:
            return None
        return {model.model_id: model.task for model in self._notes.served()}

    async def _keep_spare(self, infer: Child) -> None:
        """One look; a spare's imports must not slow down a worker that is still starting."""
        if infer.pid is not None and await asyncio.to_thread(self._notes.ready_pid, INFER) == infer.pid:
            await infer.keep_spare()

    def _link_changed(self, url: str, state: LinkState) -> None:
        if state is LinkState.UP:
            self.connected.add(url)
        else:
            self.connected.discard(url)

    def _child(self, role: str, broker_url: str) -> Child:
        options = self._options
        settings = {
            **options.child_settings,
            "WATT_NODE_BROKER_URL": broker_url,
            "WATT_NODE_QUEUE": options.queue,
        }
        spec = ChildSpec(
            name=role,
            app=options.worker_app,
            queue=infer_queue(options.queue) if role == INFER else settle_queue(options.queue),
            pool="threads" if role == INFER else "solo",
            concurrency=_HANDS if role == INFER else 1,
            spare=role == INFER and options.spare_worker,
        )

        answers = self._ledger.receipts.answers()

        def died(pid: int) -> bool:
            nonlocal answers
            # The process is gone for certain, so its leases need not run out first.
            freed = self._ledger.orders.release(worker_prefix(role, pid))
            if role == INFER:
                self._ledger.orders.forget_tasks()
            if freed:
                log.warning(Log.LEASE_LOST, role=role, pid=pid, orders=len(freed))
            before, answers = answers, self._ledger.receipts.answers()
            return role == INFER and answers > before

        environment = child_environment(settings, os.getpid(), without=_SECRETS[role])
        return Child(spec, environment, on_exit=died)

    @contextlib.contextmanager
    def _metrics(self, live: Path) -> Iterator[int]:
        wanted = self._options.metrics_port
        if wanted < 0:
            yield 0
            return
        try:
            port, stop = serve(wanted, lambda: reading(self._ledger, live, self._now_ms()))
        except OSError as error:
            detail = f"/metrics cannot be served on 127.0.0.1:{wanted} ({error.strerror})"
            raise BadRequest(ErrorCode.INVALID_REQUEST, detail) from error
        log.info(Log.STARTED, name="metrics", port=port)
        try:
            yield port
        finally:
            stop()

    @contextlib.asynccontextmanager
    async def _broker(self) -> AsyncIterator[tuple[str, Broker | None]]:
        if self._options.broker_url is not None:
            yield self._options.broker_url, None
            return
        broker = Broker(self._options.data_dir / "broker")
        await asyncio.to_thread(broker.start)
        try:
            yield broker.url, broker
        finally:
            await asyncio.to_thread(broker.stop)


def worker_prefix(role: str, pid: int) -> str:
    """Start of the lease owner's name of a process of this machine."""
    return f"{socket.gethostname()}-{role}-{pid}-"


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST, f"a daemon already runs in {path.parent.parent}"
            ) from error
        yield

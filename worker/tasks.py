"""The node's Celery tasks: thin, idempotent, and fed with ids only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps, signals
from celery.exceptions import Reject

from marketplace.protocol.hexes import from_hex
from marketplace.telemetry.logs import bound
from worker.ledger.task_names import EXECUTE, SETTLE
from worker.receipts import Stopping


def register(app: Celery, *, execute: Callable[[bytes], None], settle: Callable[[bool, str], None]) -> None:
    """Adds the tasks to an app.

    Args:
        app: the process's Celery app.
        execute: starts one order by its hash; returns once it has a slot. Raises `Stopping`.
        settle: settles what is due, or (True) everything; the text names the request when it is done.
    """

    def run_execute(task: Any, order_hash: str) -> None:
        with bound(trace_id=str((task.request.headers or {}).get("trace_id", ""))):
            try:
                execute(from_hex(order_hash, 32))
            except Stopping as stopping:
                # Back in the queue: nobody has claimed the order.
                raise Reject(stopping, requeue=True) from stopping

    def run_settle(_task: Any, everything: bool, request: str) -> None:  # noqa: FBT001 - a message's fields
        settle(everything, request)

    app.task(name=EXECUTE, bind=True)(run_execute)
    app.task(name=SETTLE, bind=True)(run_settle)


def prepare(
    app: Celery,
    *,
    start: Callable[[set[str]], None],
    asked: Callable[[], None],
    stop: Callable[[], None],
) -> None:
    """Has a worker get ready before its first task, and clean up after its last.

    Args:
        app: the process's Celery app.
        start: gets the queues the worker reads; an exception ends the worker with a status other than 0.
        asked: the worker was asked to stop; called in its signal handler.
        stop: after the consumer has stopped.
    """

    class Prepare(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery carries no types
        """Runs between the pool and the consumer."""

        requires = frozenset({"celery.worker.components:Pool"})

        def start(self, worker: Any) -> None:
            """Before the consumer starts."""
            start(set(worker.app.amqp.queues.consume_from))

        def stop(self, worker: Any) -> None:  # noqa: ARG002 - Celery passes it
            """After the consumer stopped."""
            stop()

    def shutting_down(**_: object) -> None:
        asked()

    app.steps["worker"].add(Prepare)
    signals.worker_shutting_down.connect(shutting_down, weak=False)

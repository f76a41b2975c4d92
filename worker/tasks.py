"""The node's Celery tasks: thin, idempotent, and fed with ids only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps

from marketplace.protocol.hexes import from_hex
from marketplace.telemetry.logs import bound
from worker.ledger.task_names import EXECUTE, SETTLE


def register(app: Celery, *, execute: Callable[[bytes], None], settle: Callable[[bool, str], None]) -> None:
    """Adds the tasks to an app.

    Args:
        app: the process's Celery app.
        execute: runs one order by its hash.
        settle: settles what is due, or (True) everything; the text names the request when it is done.
    """

    def run_execute(task: Any, order_hash: str) -> None:
        with bound(trace_id=str((task.request.headers or {}).get("trace_id", ""))):
            execute(from_hex(order_hash, 32))

    def run_settle(_task: Any, everything: bool, request: str) -> None:  # noqa: FBT001 - a message's fields
        settle(everything, request)

    app.task(name=EXECUTE, bind=True)(run_execute)
    app.task(name=SETTLE, bind=True)(run_settle)


def prepare(app: Celery, *, start: Callable[[set[str]], None], stop: Callable[[], None]) -> None:
    """Has a worker get ready before its first task, and clean up after its last.

    Args:
        app: the process's Celery app.
        start: gets the queues the worker reads; an exception ends the worker with a status other than 0.
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

    app.steps["worker"].add(Prepare)

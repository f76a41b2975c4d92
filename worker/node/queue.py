"""The node's side of Celery: settings every process shares, and sending tasks by name."""

from __future__ import annotations

from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError

from marketplace.protocol.hexes import to_hex
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger.task_names import EXECUTE, SETTLE, infer_queue, settle_queue

_SEND_RETRIES: Final = {"max_retries": 2, "interval_start": 0.05, "interval_step": 0.2, "interval_max": 0.5}

log = get_logger(__name__)


def configure(app: Celery) -> None:
    """Sets what every process of a node must agree on.

    The result backend is off: results live in the ledger. So does who works on what: a task says only that
    there is an order, and one that gets lost is sent again.
    """
    options: dict[str, Any] = {}
    if str(app.conf.broker_url).startswith(("redis", "rediss")):
        # What a worker took and has not acknowledged would be kept a second time, in the broker: dear with
        # every task, and of use only after a time-out that is longer than ours.
        options = {"ack_emulation": False}
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_create_missing_queues=True,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_soft_shutdown_timeout=0,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=options,
        enable_utc=True,
    )


class TaskQueue:
    """Sends the node's tasks. Losing one is harmless: the reconciler sends it again."""

    def __init__(self, broker_url: str, queue: str) -> None:
        self._queue = queue
        self.broker_url = broker_url
        self._app = Celery("wattline-node", broker=broker_url, set_as_current=False)
        configure(self._app)

    def execute(self, order_hash: bytes, trace_id: str) -> bool:
        """Asks an infer process to do an accepted order; False when the broker does not answer."""
        return self._send(EXECUTE, [to_hex(order_hash)], infer_queue(self._queue), trace_id=trace_id)

    def settle(self, *, everything: bool, request: str, expires_seconds: int) -> bool:
        """Asks the settle process to look; `request` names this call in the ledger when it is done."""
        queue = settle_queue(self._queue)
        return self._send(SETTLE, [everything, request], queue, expires_seconds=expires_seconds)

    def close(self) -> None:
        """Closes connections to the broker."""
        self._app.close()

    def _send(
        self,
        name: str,
        args: list[Any],
        queue: str,
        *,
        trace_id: str = "",
        expires_seconds: int | None = None,
    ) -> bool:
        try:
            self._app.send_task(
                name,
                args=args,
                queue=queue,
                headers={"trace_id": trace_id},
                expires=expires_seconds,
                retry=True,
                retry_policy=_SEND_RETRIES,
            )
        except (OperationalError, OSError) as error:
            log.warning(Log.LOOP_FAILED, loop="broker", task=name, reason=type(error).__name__)
            return False
        return True

"""Keeps the worker leases of running jobs, and tells a job when it lost one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from marketplace.protocol.errors import ErrorCode, LostRace
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import HeldOrder, Ledger

_RENEWALS_PER_LEASE: Final = 4

log = get_logger(__name__)


class LeaseLapsed(LostRace):
    """The gateway gave the job away; only a status-0 receipt may be signed for it."""


class Hold:
    """One job's leases as this process last saw them."""

    def __init__(self, order: HeldOrder) -> None:
        self.order_hash = order.order_hash
        self.gateway_lease_until_ms = order.gateway_lease_until_ms
        self.lost = False

    def check(self, now_ms: int) -> None:
        """Passes while both leases stand.

        Raises:
            LeaseLapsed: the gateway's lease has lapsed.
            LostRace: another process may have taken the job over.
        """
        if self.lost:
            raise LostRace(ErrorCode.LEASE_LOST, "the worker lease was lost")
        if now_ms >= self.gateway_lease_until_ms:
            raise LeaseLapsed(ErrorCode.LEASE_LOST, "the gateway's lease lapsed")


class LeaseKeeper:
    """Renews the leases of all jobs this process runs, from one thread."""

    def __init__(self, ledger: Ledger, worker: str, now_ms: Callable[[], int], *, lease_ms: int) -> None:
        self._ledger = ledger
        self._now_ms = now_ms
        self.worker = worker
        self.lease_ms = lease_ms
        self._holds: dict[bytes, Hold] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.on_cancel: Callable[[bytes], None] = _nobody_asks
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def start(self) -> None:
        """Starts renewing in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Stops renewing. Idempotent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def hold(self, order: HeldOrder) -> Hold:
        """Keeps a claimed order's lease until `let_go`."""
        hold = Hold(order)
        with self._lock:
            self._holds[order.order_hash] = hold
        return hold

    def let_go(self, order_hash: bytes) -> None:
        """Renews this order no more. Idempotent."""
        with self._lock:
            self._holds.pop(order_hash, None)

    def renew(self) -> None:
        """Renews every lease once; holds that are gone are marked lost, cancelled orders passed on."""
        with self._lock:
            holds = dict(self._holds)
        if not holds:
            return
        kept = self._ledger.orders.renew(self.worker, holds, until_ms=self._now_ms() + self.lease_ms)
        for order_hash, hold in holds.items():
            if order_hash in kept:
                hold.gateway_lease_until_ms = kept[order_hash]
            else:
                hold.lost = True
        # The daemon says so at once through the broker; this is for word that got lost.
        for order_hash in self._ledger.cancels.among(holds):
            self.on_cancel(order_hash)

    def _run(self) -> None:
        while not self._stop.wait(self.lease_ms / _RENEWALS_PER_LEASE / 1000):
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001  # loop edge: a locked or full disk must not end renewing
                log.warning(Log.LOOP_FAILED, loop="leases", reason=type(error).__name__)


def _nobody_asks(_order_hash: bytes) -> None:
    return

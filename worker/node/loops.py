"""The daemon's loops: tasks that got lost, vouchers to settle, claims to make, a broker that died."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from marketplace.protocol.errors import LostRace, WattError
from marketplace.protocol.hexes import to_hex
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import Ledger
from worker.node.broker import Broker
from worker.node.facts import Notes
from worker.node.queue import TaskQueue
from worker.receipts import ReceiptDesk

# An order this far past its deadline with nobody working on it is ended by the daemon itself.
_DEADLINE_GRACE_MS: Final = 2_000
_POLL_SECONDS: Final = 0.2

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopTimes:
    """How often the loops turn.

    Attributes:
        resend_ms: a task nobody took is sent again after this.
    """

    reconcile_ms: int = 1_000
    resend_ms: int = 15_000
    settle_ms: int = 15_000


class Reconciler:
    """Finds orders whose task was lost or whose worker died."""

    def __init__(
        self,
        ledger: Ledger,
        queue: TaskQueue,
        desk: ReceiptDesk,
        now_ms: Callable[[], int],
        *,
        resend_ms: int,
        hint: Callable[[bytes], None],
    ) -> None:
        self._ledger = ledger
        self._queue = queue
        self._desk = desk
        self._now_ms = now_ms
        self._resend_ms = resend_ms
        self._hint = hint

    def step(self) -> int:
        """Sends their tasks again, or ends what is past its deadline; gives the orders touched."""
        now_ms = self._now_ms()
        found = self._ledger.orders.unclaimed(now_ms=now_ms, sent_before_ms=now_ms - self._resend_ms)
        sent = []
        for order in found:
            if now_ms > order.deadline_ms + _DEADLINE_GRACE_MS:
                self._end(order.order_hash)
            elif self._queue.execute(order.order_hash, order.trace_id):
                sent.append(order.order_hash)
        if sent:
            self._ledger.orders.task_sent(sent, now_ms=now_ms)
        return len(found)

    def _end(self, order_hash: bytes) -> None:
        try:
            self._desk.fail(order_hash, None, "deadline_passed")
        except LostRace as lost:
            log.info(Log.RACE_LOST, order_hash=to_hex(order_hash), reason=lost.detail)
            return
        self._hint(order_hash)


class SettleTrigger:
    """Asks the settle process to look, and waits for it where that matters."""

    def __init__(
        self,
        ledger: Ledger,
        queue: TaskQueue,
        *,
        every_ms: int,
        claims_due: Callable[[], bool] = lambda: False,
    ) -> None:
        """`claims_due` says whether there may be something to claim or to finalise."""
        self._ledger = ledger
        self._queue = queue
        self._claims_due = claims_due
        self._notes = Notes(ledger)
        self._expires_seconds = max(1, every_ms // 1000)

    def step(self) -> None:
        """Asks once, when there is anything to settle or to claim."""
        if self._ledger.vouchers.unsettled() or self._claims_due():
            self._queue.settle(everything=False, request="", expires_seconds=self._expires_seconds)

    def settle_all(self) -> str:
        """Asks to settle everything payable; gives the name of the request."""
        request = secrets.token_hex(8)
        self._queue.settle(everything=True, request=request, expires_seconds=600)
        return request

    def done(self, request: str) -> bool:
        """Whether the request was answered."""
        return self._notes.settled(request)

    async def settle_all_and_wait(self, *, timeout_seconds: float) -> bool:
        """Settles everything payable; False when it takes too long. The next start goes on then."""
        if not await asyncio.to_thread(self._ledger.vouchers.unsettled):
            return True
        request = await asyncio.to_thread(self.settle_all)
        try:
            async with asyncio.timeout(timeout_seconds):
                # Another process answers through the ledger, which cannot wake us.
                while not await asyncio.to_thread(self.done, request):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            return False
        return True


async def every(name: str, milliseconds: int, turn: Callable[[], Awaitable[object]]) -> None:
    """Takes a turn again and again; a turn that fails is logged and the loop goes on."""
    while True:
        try:
            await turn()
        except WattError as error:
            log.warning(Log.LOOP_FAILED, loop=name, code=error.code.value, reason=error.detail)
        except Exception as error:  # loop edge: a full disk or a locked ledger passes
            log.exception(Log.LOOP_FAILED, loop=name, reason=type(error).__name__)
        await asyncio.sleep(milliseconds / 1000)


async def watch_broker(broker: Broker) -> None:
    """One look at the bundled broker; a dead one is started again at its address."""
    if not broker.alive():
        log.error(Log.LOOP_FAILED, loop="broker", reason="the server ended; starting it again")
        await asyncio.to_thread(broker.restart)

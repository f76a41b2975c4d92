"""What the daemon does with each frame of a gateway, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from marketplace.protocol import wire
from marketplace.protocol.errors import ErrorCode, LostRace, WattError
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Voucher
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import Ledger
from worker.node.delivery import Delivery, could_be_late
from worker.node.intake import Answer, Intake, Refusal
from worker.node.queue import TaskQueue
from worker.receipts import ReceiptDesk
from worker.settle.vouchers import VoucherDesk

Send = Callable[[wire.Frame], Awaitable[None]]
_DETAIL_CHARACTERS: Final = 500
_COUNTED_AT_ONCE, _MOST_QUESTIONS = 2, 64

log = get_logger(__name__)


class FrameDesk:
    """Handles frames of all gateways."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        intake: Intake,
        vouchers: VoucherDesk,
        queue: TaskQueue,
        deliveries: Mapping[str, Delivery],
        receipts: ReceiptDesk,
        tell_workers: Callable[[Sequence[bytes]], None],
        now_ms: Callable[[], int],
    ) -> None:
        """`tell_workers` passes on orders to be cut short. Call this on the links' event loop."""
        self._ledger = ledger
        self._intake = intake
        self._vouchers = vouchers
        self._queue = queue
        self._deliveries = deliveries
        self._receipts = receipts
        self._tell_workers = tell_workers
        self._loop = asyncio.get_running_loop()
        self._now_ms = now_ms
        self._counting = asyncio.Semaphore(_COUNTED_AT_ONCE)
        self._questions = 0

    async def receive(self, frame: wire.FromGateway, gateway: str, send: Send) -> None:
        """Handles one frame; raises only what `send` raises."""
        if isinstance(frame, wire.OrderFrame):
            await self._order(frame, gateway, send)
        elif isinstance(frame, wire.Count):
            await self._tell_count(frame, send)
        elif isinstance(frame, wire.VoucherFrame):
            await self._voucher(frame, send)
        elif isinstance(frame, wire.Lease):
            await asyncio.to_thread(
                self._ledger.orders.extend, frame.orders, gateway, until_ms=frame.until_ms
            )
        elif isinstance(frame, wire.Cancel):
            await asyncio.to_thread(self._cancel, frame.order_hash, gateway)
        elif isinstance(frame, wire.Delivered):
            await self._delivered(frame.order_hash, gateway)
        elif isinstance(frame, wire.Superseded):
            await asyncio.to_thread(self._superseded, frame.order_hash)
            await self._delivered(frame.order_hash, gateway)

    async def _order(self, frame: wire.OrderFrame, gateway: str, send: Send) -> None:
        try:
            taken = await asyncio.to_thread(self._intake.take, frame, gateway)
        except Refusal as refusal:
            await send(_refused(refusal))
            return
        self._deliveries[gateway].add(taken.order_hash)
        accepted = send(wire.Accepted(order_hash=taken.order_hash))
        if taken.answer is Answer.KNOWN:
            await accepted
            return
        # Side by side: the order is stored, so a link that breaks now does not keep it from being done.
        execute = asyncio.to_thread(self._queue.execute, taken.order_hash, taken.trace_id)
        for done in await asyncio.gather(accepted, execute, return_exceptions=True):
            if isinstance(done, BaseException):
                raise done

    async def _tell_count(self, frame: wire.Count, send: Send) -> None:
        units_in = None
        # Questions are free, so they must not take the threads that orders need, nor pile up.
        if self._questions < _MOST_QUESTIONS:
            self._questions += 1
            try:
                async with self._counting:
                    units_in = await asyncio.to_thread(self._intake.count, frame.payload)
            finally:
                self._questions -= 1
        await send(wire.Counted(number=frame.number, units_in=units_in))

    def _cancel(self, order_hash: bytes, gateway: str) -> None:
        order = self._ledger.orders.get(order_hash)
        if order is None or order.gateway != gateway or self._ledger.receipts.get(order_hash) is not None:
            return
        log.info(Log.JOB_CANCELLED, order_hash=to_hex(order_hash), trace_id=order.trace_id)
        # Written first: the worker that holds the order, or takes it up next, finds it there.
        self._ledger.cancels.ask(order_hash, now_ms=self._now_ms())
        self._tell_workers([order_hash])
        if not self._ledger.chunks.of(order_hash):
            self._end_unstarted(order_hash)

    def _end_unstarted(self, order_hash: bytes) -> None:
        try:
            self._receipts.fail(order_hash, None, "cancelled")
        except LostRace:
            # A worker has it and will end it.
            return
        for delivery in self._deliveries.values():
            self._loop.call_soon_threadsafe(delivery.hint, order_hash)

    async def _voucher(self, frame: wire.VoucherFrame, send: Send) -> None:
        try:
            voucher = await asyncio.to_thread(
                self._vouchers.take, frame.voucher.message, frame.voucher.signature, frame.trace_ids
            )
        except WattError as error:
            log.warning(Log.VOUCHER_REFUSED, code=error.code.value, reason=error.detail)
            await send(_not_taken(frame, error))
            return
        await send(wire.VoucherTaken(session_id=voucher.session_id, through_seq=voucher.through_seq))

    async def _delivered(self, order_hash: bytes, gateway: str) -> None:
        await asyncio.to_thread(self._ledger.signing.delivered, order_hash, now_ms=self._now_ms())
        self._deliveries[gateway].done(order_hash)

    def _superseded(self, order_hash: bytes) -> None:
        receipt = self._ledger.receipts.get(order_hash)
        order = self._ledger.orders.get(order_hash)
        if receipt is None or order is None or receipt.sent_at_ms is None:
            return
        late = could_be_late(receipt.sent_at_ms, order.gateway_lease_until_ms)
        waived = late and self._ledger.receipts.waive(order_hash)
        log.warning(
            Log.LEASE_LOST,
            order_hash=to_hex(order_hash),
            trace_id=order.trace_id,
            waived=waived,
            amount_atoms=receipt.amount_atoms,
        )


def _refused(refusal: Refusal) -> wire.Frame:
    detail = refusal.detail[:_DETAIL_CHARACTERS]
    if refusal.order_hash is None:
        return wire.Problem(code=refusal.code.value, detail=detail)
    return wire.Refused(order_hash=refusal.order_hash, code=refusal.code.value, detail=detail)


def _not_taken(frame: wire.VoucherFrame, error: WattError) -> wire.Frame:
    detail = error.detail[:_DETAIL_CHARACTERS]
    try:
        voucher = Voucher.decode(frame.voucher.message)
    except ValueError:
        return wire.Problem(code=error.code.value, detail=detail)
    code = error.code if error.code is ErrorCode.CHAIN_UNAVAILABLE else ErrorCode.VOUCHER_MISMATCH
    return wire.VoucherTaken(
        session_id=voucher.session_id, through_seq=voucher.through_seq, code=code.value, detail=detail
    )

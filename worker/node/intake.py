"""Takes orders: load → decide → store, before any work."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from marketplace.protocol.errors import BadRequest, ErrorCode, WattError
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Offer, Order
from marketplace.protocol.payloads import units_in_ceiling
from marketplace.protocol.sealed import Responses, is_sealed, open_request
from marketplace.protocol.wire import OrderFrame
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.ledger import HeldOrder, HeldSession, Ledger, Usage
from worker.node.rules import (
    MAX_SKEW_MS,
    Promised,
    SessionFacts,
    Terms,
    check_offer,
    check_payload,
    check_price,
    check_promises,
    check_session,
    check_time,
    decode_order,
    order_key,
)
from worker.settle.sessions import SessionBook

# A refusal is final. After this long the order's age alone refuses it.
_REFUSED_MS: Final = 3 * MAX_SKEW_MS

log = get_logger(__name__)


class Answer(StrEnum):
    """What became of an order frame."""

    NEW = "new"
    KNOWN = "known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An order this node has."""

    order_hash: bytes
    trace_id: str
    answer: Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An order as read from its frame; nothing about it is agreed yet."""

    order: Order
    order_hash: bytes
    key: str


class Refusal(Exception):
    """An order this node will not do; nothing was stored. No hash: its bytes are no order."""

    def __init__(self, order_hash: bytes | None, error: WattError) -> None:
        self.order_hash = order_hash
        self.code = error.code
        self.detail = error.detail
        super().__init__(error.detail)


class Intake:
    """The door for orders. Called from several threads."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        sessions: SessionBook,
        terms: Terms,
        tasks: Callable[[], Mapping[bytes, str] | None],
        grace_seconds: int,
        now_ms: Callable[[], int],
        encryption_secret: bytes,
        count: Callable[[bytes], int | None] = lambda _payload: None,
    ) -> None:
        """`tasks` gives the models served, to their task; None while none can be run.

        `encryption_secret` opens sealed requests; its public key is the node's in the registry. `count` gives
        the input units that a payload will be billed for; None when it cannot be told.
        """
        self._ledger = ledger
        self._sessions = sessions
        self._terms = terms
        self._tasks = tasks
        self._grace_seconds = grace_seconds
        self._now_ms = now_ms
        self._encryption_secret = encryption_secret
        self.count = count
        self._refused: OrderedDict[bytes, tuple[int, WattError]] = OrderedDict()
        self.draining = False

    def take(self, frame: OrderFrame, gateway: str) -> Taken:
        """Stores an order, or finds it stored.

        Raises:
            Refusal: the node will not do it. The same order is refused again, whatever changed since.
        """
        asked = self._read(frame)
        known = Taken(order_hash=asked.order_hash, trace_id=frame.trace_id, answer=Answer.KNOWN)
        if self._ledger.orders.get(asked.order_hash) is not None:
            self._ledger.orders.extend([asked.order_hash], gateway, until_ms=frame.lease_until_ms)
            return known
        try:
            self._check_not_refused(asked.order_hash)
            self._accept(asked, frame, gateway)
        except WattError as error:
            if self._ledger.orders.get(asked.order_hash) is not None:
                # The same frame came twice at once, and the other was quicker.
                return known
            self._remember(asked.order_hash, error)
            log.info(
                Log.REQUEST_REFUSED,
                order_hash=to_hex(asked.order_hash),
                trace_id=frame.trace_id,
                code=error.code.value,
            )
            raise Refusal(asked.order_hash, error) from error
        log.info(
            Log.JOB_ORDERED,
            order_hash=to_hex(asked.order_hash),
            trace_id=frame.trace_id,
            session_id=to_hex(asked.order.session_id),
            seq=asked.order.seq,
        )
        return Taken(order_hash=asked.order_hash, trace_id=frame.trace_id, answer=Answer.NEW)

    def _read(self, frame: OrderFrame) -> _Asked:
        try:
            order = decode_order(frame)
        except BadRequest as error:
            raise Refusal(None, error) from error
        order_hash = order.digest(self._terms.domain)
        try:
            return _Asked(order=order, order_hash=order_hash, key=order_key(order, frame, self._terms.domain))
        except BadRequest as error:
            raise Refusal(order_hash, error) from error

    def _accept(self, asked: _Asked, frame: OrderFrame, gateway: str) -> None:
        order, now_ms = asked.order, self._now_ms()
        if self.draining:
            raise BadRequest(ErrorCode.NODE_BUSY, "this node is draining")
        check_time(order, self._terms, now_ms)
        tasks = self._tasks()
        if tasks is None:
            raise BadRequest(ErrorCode.NODE_BUSY, "this node's models are being loaded")
        offer = check_offer(order, self._offer(order.offer_hash), tasks)
        frame, seal = self._opened(asked, frame, offer, tasks)
        session = self._sessions.get(order.session_id, asked.key)
        held = _held(asked, frame, gateway, now_ms)
        try:
            self._store(order, held, session, seal)
        except BadRequest as error:
            if error.code is not ErrorCode.SESSION_UNDERFUNDED:
                raise
            # It may have been topped up since it was read. One that is unknown was asked for just now.
            self._store(order, held, self._sessions.refresh(order.session_id, asked.key), seal)

    def _opened(
        self, asked: _Asked, frame: OrderFrame, offer: Offer, tasks: Mapping[bytes, str]
    ) -> tuple[OrderFrame, Responses | None]:
        """The frame with its content checked and in plain, and what the answer is sealed with."""
        order = asked.order
        if not is_sealed(frame.payload):
            self._check(order, frame.salt, frame.payload, offer, tasks)
            return frame, None
        opened = open_request(self._encryption_secret, order, asked.order_hash, frame.payload)
        try:
            self._check(order, opened.salt, opened.payload, offer, tasks)
        except BadRequest as error:
            # The gateway hears which rule it broke, and nothing of what is inside.
            raise BadRequest(error.code, "the sealed request was refused") from error
        inside = {"salt": opened.salt, "payload": opened.payload}
        return frame.model_copy(update=inside), opened.responses

    def _check(
        self, order: Order, salt: bytes, data: bytes, offer: Offer, tasks: Mapping[bytes, str]
    ) -> None:
        payload = check_payload(order, salt, data, offer, tasks)
        try:
            check_price(order, offer, payload, units_in_ceiling(payload))
        except BadRequest:
            # It may have been quoted by our own count, which is below the bound in bytes.
            units_in = self.count(data)
            if units_in is None:
                raise
            check_price(order, offer, payload, units_in)

    def _store(
        self, order: Order, held: HeldOrder, session: HeldSession | None, seal: Responses | None
    ) -> None:
        now_ms = self._now_ms()
        facts = check_session(order, _facts(session), self._terms, now_ms)

        def judge(usage: Usage) -> None:
            check_promises(order, facts, _promised(usage), self._terms)

        pays_after = now_ms // 1000 - self._grace_seconds
        self._ledger.acceptance.take(held, judge, pays_after=pays_after, seal=seal)

    def _offer(self, offer_hash: bytes) -> Offer | None:
        held = self._ledger.offers.get(offer_hash)
        return Offer.decode(held.message) if held else None

    def _check_not_refused(self, order_hash: bytes) -> None:
        before = self._refused.get(order_hash)
        if before is not None:
            raise before[1]

    def _remember(self, order_hash: bytes, error: WattError) -> None:
        now_ms = self._now_ms()
        self._refused.setdefault(order_hash, (now_ms, error))
        for known, (at_ms, _) in list(self._refused.items()):
            if now_ms - at_ms <= _REFUSED_MS:
                break
            self._refused.pop(known, None)


def _facts(held: HeldSession | None) -> SessionFacts | None:
    if held is None:
        return None
    return SessionFacts(
        node_id=held.node_id,
        key_epoch=held.key_epoch,
        deposited_atoms=held.deposited_atoms,
        expires_at=held.expires_at,
        closed=held.closed,
    )


def _promised(usage: Usage) -> Promised:
    return Promised(
        vouchered_seq=usage.vouchered_seq,
        vouchered_atoms=usage.vouchered_atoms,
        owed_atoms=usage.owed_atoms,
        in_flight_atoms=usage.in_flight_atoms,
        node_exposed_atoms=usage.node_exposed_atoms,
        unfinished=usage.unfinished,
    )


def _held(asked: _Asked, frame: OrderFrame, gateway: str, now_ms: int) -> HeldOrder:
    order = asked.order
    held = HeldOrder(
        order_hash=asked.order_hash,
        session_id=order.session_id,
        seq=order.seq,
        key=asked.key,
        offer_hash=order.offer_hash,
        message=frame.order.message,
        signature=frame.order.signature,
        salt=frame.salt,
        payload=frame.payload,
        job_id=frame.job_id,
        trace_id=frame.trace_id,
        gateway=gateway,
        max_amount_atoms=order.max_amount_atoms,
        deadline_ms=order.deadline_ms,
        gateway_lease_until_ms=frame.lease_until_ms,
        accepted_at_ms=now_ms,
    )
    # The task goes out right after; the reconciler must not send a second one meanwhile.
    return replace(held, task_sent_at_ms=now_ms)

"""One ask from quote to voucher; to another node when one fails without charge, within the deadline.

quote → offer verified → session and seat → Order signed → streamed → receipt verified → voucher

An ask that is one call (`Once`) has its orders in the call book; asked again, it attaches to the one it has.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from marketplace.client.acceptance import accept
from marketplace.client.asks import Ask, Heard
from marketplace.client.books import Books
from marketplace.client.bundle import Bundle, decode_base64
from marketplace.client.callbook import Call, CallBook, CallState, Once
from marketplace.client.desk import Desk
from marketplace.client.envelope import opened_event, seal_of
from marketplace.client.gateway import Event
from marketplace.client.journal import SessionUse
from marketplace.client.ordering import Errand, Ordering
from marketplace.client.placed import Keep, Placed
from marketplace.client.problems import GatewayProblem, GatewayTrouble, problem_of
from marketplace.client.quotes import Quote
from marketplace.client.sessions import SessionPool
from marketplace.client.told import Began as Began
from marketplace.client.told import Done as Done
from marketplace.client.told import Piece as Piece
from marketplace.client.told import Told as Told
from marketplace.client.verify import Check
from marketplace.protocol.annex import Annex
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace, ProviderFault, WattError
from marketplace.protocol.messages import ReceiptStatus
from marketplace.protocol.payloads import Answer
from marketplace.protocol.phases import CALLERS_FAULT, ENDINGS, EndReason

_C: Final = ErrorCode
# After these another node may do better; after any other the same ask fails everywhere.
ELSEWHERE: Final = frozenset(
    {
        _C.NODE_BUSY,
        _C.NODE_FAILED,
        _C.NO_NODE,
        _C.LEASE_LOST,
        _C.OFFER_EXPIRED,
        _C.OFFER_UNKNOWN,
        _C.EXPOSURE_EXCEEDED,
        _C.SESSION_EXPIRED,
        _C.NO_SESSION,
        _C.SESSION_UNDERFUNDED,
        _C.ORDER_MISDIRECTED,
        _C.ORDER_REPLAYED,
        _C.UNKNOWN_SESSION,
        _C.UNKNOWN_NODE,
        _C.RECEIPT_INVALID,
        _C.BAD_SIGNATURE,
        _C.ORDER_EXPIRED,
        _C.DEADLINE_PASSED,
        _C.SEAL_UNUSABLE,
    }
)
# Whether it has taken the order it cannot say: the same order again is the same job, another one is not.
_UNDECIDED: Final = frozenset({_C.NOT_READY, _C.INTERNAL})
# What a gateway says of an order it sees for the first time, and too late.
_NEVER_CAME: Final = frozenset({_C.CLOCK_SKEW, _C.ORDER_EXPIRED})
# The gateway and this journal disagree about the session: it is not worth a second order.
_SPOILT: Final = frozenset({_C.ORDER_REPLAYED, _C.SESSION_EXPIRED, _C.UNKNOWN_SESSION, _C.ORDER_MISDIRECTED})
# Errors after which it is known that an order cost nothing, unless they say otherwise.
_DEFINITE: Final = (BadRequest, GatewayProblem, ProviderFault)
_RECONNECTS: Final = 20
_PAUSE_SECONDS: Final = 0.5


class Work:
    """Runs asks for one key; `keep` is told of each order before it leaves and before it is paid."""

    def __init__(self, desk: Desk, pool: SessionPool, books: Books, keep: Keep | None = None) -> None:
        self._desk, self._pool, self._books, self._keep = desk, pool, books, keep
        self._calls = CallBook(desk.journal, desk.key.address)
        self.ordering = Ordering(desk, pool, self._calls)

    async def run(
        self,
        ask: Ask,
        max_cost: str | None = None,
        *,
        streamed: bool = False,
        once: Once | None = None,
    ) -> AsyncGenerator[Told, None]:
        """What comes of an ask, `Done` last. The same call again gives it again, and orders nothing new.

        Once it has given text, a `streamed` ask is not moved: what was shown cannot be taken back.

        Raises:
            WattError: nobody did it; nothing was charged unless the error says so. Its value `faults` has the
                bundles of receipts that did not hold, for a node may still claim for them.
        """
        self._pool.check_model(ask.model)
        now = self._desk.now_ms()
        if once is None and self.ordering.budget is not None:
            # What a budget counts is kept with the call.
            once = Once(fingerprint=ask.fingerprint)
        call = self._calls.begin(once, now) if once else None
        deadline_ms = now + ask.timeout_ms
        errand = Errand(ask=ask, max_cost=max_cost, streamed=streamed, call=call, deadline_ms=deadline_ms)
        faults: list[Any] = []
        try:
            async with aclosing(self._run(errand, faults)) as told:
                async for item in told:
                    if isinstance(item, Done):
                        self._end(call, CallState.DELIVERED)
                        yield replace(item, faults=tuple(faults))
                    else:
                        yield item
        except WattError as error:
            error.values["faults"] = tuple(faults)
            if isinstance(error, _DEFINITE) and not getattr(error, "charged", False):
                self._end(call, CallState.FAILED)
            elif isinstance(error, GatewayTrouble) and self._standing(call):
                error.hint = (
                    "Send the same call again: it attaches to its order, which is charged at most once."
                )
            raise

    async def again(self, placed: Placed) -> AsyncGenerator[Told, None]:
        """An order that was kept, sent again: the same bytes are the same job. Gives and raises as `run`."""
        try:
            async with aclosing(self._carry_out(placed, 1, again=True)) as told:
                async for item in told:
                    yield item
        except WattError as error:
            error.values["faults"] = (error.values["bundle"],) if "bundle" in error.values else ()
            raise

    async def quotes(self, ask: Ask, max_cost: str | None = None) -> list[Quote]:
        """As `Ordering.quotes`."""
        return await self.ordering.quotes(ask, max_cost)

    def unfinished(self) -> list[Call]:
        """Calls of a process that ended before their orders did."""
        return self._calls.unfinished()

    async def finish(self, call: Call) -> AsyncGenerator[Told, None]:
        """Follows the order of an unfinished call to its end, verifies its receipt and pays; orders nothing.

        Raises:
            WattError: it brought nothing, or its end cannot be known yet.
        """
        placed = self._calls.standing(call)
        if placed is None:
            return
        try:
            async with aclosing(self._carry_out(placed, 1, again=True)) as told:
                async for item in told:
                    if isinstance(item, Done):
                        self._end(call, CallState.DELIVERED)
                    yield item
        except _DEFINITE:
            if self._calls.give_up(placed):
                self._end(call, CallState.FAILED)
            raise

    async def _run(self, errand: Errand, faults: list[Any]) -> AsyncGenerator[Told, None]:
        tried: set[int] = set()
        last: WattError | None = None
        for attempt in range(1, errand.ask.max_attempts + 1):
            placed, shown = self._standing(errand.call), False
            quote = None if placed else await self.ordering.pick(errand, tried)
            if placed is None and quote is None:
                break
            try:
                async with aclosing(self._attempt(errand, placed, quote, attempt)) as told:
                    async for item in told:
                        shown = shown or (errand.streamed and isinstance(item, Piece))
                        yield item
            except LostRace:
                # Another reader of this call has ordered: the next turn follows that order.
                continue
            except _DEFINITE as error:
                faults += [error.values["bundle"]] if "bundle" in error.values else []
                final = shown or getattr(error, "charged", False) or error.code not in ELSEWHERE
                if final or self._desk.now_ms() >= errand.deadline_ms:
                    raise
                node_id = placed.session.node_id if placed else quote.node_id if quote else 0
                # An order that never came says nothing about its node.
                tried |= set() if error.code is ErrorCode.ORDER_EXPIRED else {node_id}
                last = error
            else:
                return
        raise last or GatewayProblem(ErrorCode.NO_NODE, "No node can take this now.")

    async def _attempt(
        self, errand: Errand, standing: Placed | None, quote: Quote | None, attempt: int
    ) -> AsyncGenerator[Told, None]:
        """Follows the standing order of a call, else a new one for a quote."""
        placed = standing
        try:
            if placed is None and quote is not None:
                placed = await self.ordering.place(errand, quote)
                if self._keep is not None:
                    self._keep.placed(placed)
            if placed is not None:
                again, heard = standing is not None, errand.ask.heard
                carried = self._carry_out(placed, attempt, again=again, heard=heard)
                async with aclosing(carried) as told:
                    async for item in told:
                        yield item
        except _DEFINITE as error:
            self._give_back(errand.call, placed, error)
            raise

    def _standing(self, call: Call | None) -> Placed | None:
        return self._calls.standing(call) if call else None

    def _end(self, call: Call | None, state: CallState) -> None:
        if call is not None:
            self._calls.end(call, state)

    def _give_back(self, call: Call | None, placed: Placed | None, error: WattError) -> None:
        """After an order that cost nothing its call may have another.

        Raises:
            GatewayProblem: it did cost something, before; the gateway no longer has what for.
        """
        if call is None or placed is None or getattr(error, "charged", False):
            return
        if not self._calls.give_up(placed):
            raise GatewayProblem(
                ErrorCode.UNKNOWN_JOB,
                f"this call was answered and paid before, and the answer is gone: {error.detail}",
                hint="Its receipt is in the first answer; a new call needs an idempotency key of its own.",
                charged=True,
            ) from error

    async def _carry_out(
        self, placed: Placed, attempt: int, *, again: bool, heard: Heard | None = None
    ) -> AsyncGenerator[Told, None]:
        """An order from its first event to its voucher; `again` when it may have been sent before."""
        chunks: list[bytes] = []
        answer = Answer()
        try:
            seal = seal_of(placed.order, placed.sealed, self._desk.key, self._desk.domain)
            await _tell(heard, Event("order", {"node_id": placed.session.node_id}))
            async with aclosing(self._events(placed, again=again)) as events:
                async for closed in events:
                    event = opened_event(closed, seal)
                    await _tell(heard, event)
                    if event.name == "job":
                        job_id, node_id = str(event.data["job_id"]), placed.session.node_id
                        yield Began(job_id=job_id, node_id=node_id, again=again)
                    elif event.name == "chunk":
                        piece = _add(event, chunks, answer)
                        if piece.text or piece.logprobs:
                            yield piece
                    elif event.name == "receipt":
                        bundle = placed.bundle(event.data, chunks, self._desk.domain)
                        checks = accept(bundle, placed.session, self._desk.domain)
                        yield await self._finish(placed, bundle, checks, answer, attempt)
        except GatewayProblem as problem:
            self._refused(placed, problem)
            raise
        except ProviderFault as fault:
            if fault.code is ErrorCode.RECEIPT_INVALID:
                # Neither paid nor counted as ended: no voucher of this session will ever pass this order.
                self._desk.journal.use(placed.session.session_id, SessionUse.RETIRED)
            raise

    async def _events(self, placed: Placed, *, again: bool) -> AsyncGenerator[Event, None]:
        """Chunks in order, each once, then the receipt; attaches again when the connection breaks.

        Raises:
            GatewayProblem: the order was refused or failed, without charge.
            GatewayTrouble: its end is not known by the deadline; the order stays open in the journal.
        """
        span = self._desk.around.random_bytes(8).hex()
        headers = {"traceparent": f"00-{placed.trace_id}-{span}-01"}
        following = 0
        for reconnect in range(_RECONNECTS + 1):
            try:
                posted = self._desk.gateway.events("/v1/jobs", placed.body(), headers=headers)
                async with aclosing(posted) as events:
                    async for event in events:
                        if event.name == "chunk":
                            if event.data.get("index") != following:
                                continue
                            following += 1
                        self._note(event, placed)
                        yield event
                        if event.name == "receipt":
                            return
            except GatewayProblem as problem:
                if (again or reconnect) and problem.code in _NEVER_CAME:
                    raise _never_came(placed) from problem
                if problem.code not in _UNDECIDED:
                    raise
                self._may_attach(placed, reconnect, problem)
            except GatewayTrouble as trouble:
                self._may_attach(placed, reconnect, trouble)
            await self._desk.around.sleep(_PAUSE_SECONDS)
        seq = placed.order.seq
        raise GatewayTrouble(f"The gateway never ended the stream of order {seq}.", outcome="pending")

    def _may_attach(self, placed: Placed, reconnect: int, why: WattError) -> None:
        """Raises `GatewayTrouble` once there is no more use in asking for an order."""
        if reconnect < _RECONNECTS and self._desk.now_ms() < placed.order.deadline_ms:
            return
        if isinstance(why, GatewayTrouble):
            why.values["outcome"] = "pending"
            raise why
        told = f"The gateway does not say what became of order {placed.order.seq}: {why.detail}"
        raise GatewayTrouble(told, outcome="pending") from why

    def _note(self, event: Event, placed: Placed) -> None:
        """Keeps the job's name; a problem event ends the attempt."""
        if event.name == "problem":
            raise problem_of(event.data)
        if event.data.get("job_id"):
            job_id = str(event.data["job_id"])
            self._desk.journal.name_job(placed.session.session_id, placed.order.seq, job_id)

    async def _finish(
        self, placed: Placed, bundle: Bundle, checks: tuple[Check, ...], answer: Answer, attempt: int
    ) -> Done:
        receipt = bundle.receipt
        if self._keep is not None and receipt.status != ReceiptStatus.FAILED:
            self._keep.answered(placed, bundle)
        self._desk.journal.end_seat(
            placed.session.session_id,
            placed.order.seq,
            amount_atoms=receipt.amount_atoms,
            digest=receipt.digest(self._desk.domain),
        )
        if receipt.status == ReceiptStatus.FAILED:
            finish = _finish_of(bundle)
            if finish == "cancelled":
                # Whoever asked for it does not want it from another node either.
                raise BadRequest(ErrorCode.CANCELLED, ENDINGS[EndReason.CANCELLED].sentence)
            if finish in CALLERS_FAULT:
                # Of a sealed job only its annex says so, which its gateway does not read.
                raise BadRequest(ErrorCode(finish), ENDINGS[EndReason.BAD_INPUT].sentence)
            ending = ENDINGS[EndReason.NODE_FAILED]
            raise ProviderFault(ErrorCode.NODE_FAILED, f"Node {bundle.node_id}: {ending.sentence}")
        return Done(
            model=placed.model,
            bundle=bundle,
            checks=checks,
            answer=answer,
            ceiling_atoms=placed.ceiling_atoms,
            acknowledged=await self._books.acknowledge(placed.session),
            attempts=attempt,
        )

    def _refused(self, placed: Placed, problem: GatewayProblem) -> None:
        if not problem.charged:
            self._desk.journal.end_seat(placed.session.session_id, placed.order.seq)
        if problem.code in _SPOILT:
            self._desk.journal.use(placed.session.session_id, SessionUse.RETIRED)


async def _tell(heard: Heard | None, event: Event) -> None:
    if heard is not None:
        await heard(event)


def _finish_of(bundle: Bundle) -> str:
    try:
        return Annex.model_validate_json(bundle.annex).finish
    except ValidationError:
        return ""


def _add(event: Event, chunks: list[bytes], answer: Answer) -> Piece:
    told = len(answer.logprobs)
    try:
        chunk = decode_base64(event.data["body"])
        text = answer.add(chunk)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProviderFault(ErrorCode.RECEIPT_INVALID, f"a response chunk cannot be read: {error}") from error
    chunks.append(chunk)
    return Piece(text=text, logprobs=tuple(answer.logprobs[told:]))


def _never_came(placed: Placed) -> GatewayProblem:
    seq = placed.order.seq
    return GatewayProblem(
        ErrorCode.ORDER_EXPIRED, f"order {seq} never reached the gateway, and is too old now"
    )

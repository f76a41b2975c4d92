"""One ask from quote to voucher; to another node when one fails without charge, within the deadline.

quote → offer verified → session and seat → Order signed → streamed → receipt verified → voucher
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from marketplace.client.acceptance import accept
from marketplace.client.asks import Ask, quote_body
from marketplace.client.books import Books
from marketplace.client.bundle import Bundle, decode_base64, signed_message
from marketplace.client.desk import Desk, threaded
from marketplace.client.gateway import Event
from marketplace.client.journal import SessionUse
from marketplace.client.placed import Keep, Placed
from marketplace.client.problems import GatewayProblem, GatewayTrouble, problem_of
from marketplace.client.quotes import Quote, ceiling_atoms, check_offer
from marketplace.client.sessions import SessionPool
from marketplace.client.verify import Check
from marketplace.protocol import sealing
from marketplace.protocol.annex import Annex
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode, ProviderFault, WattError
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.merkle import request_hash
from marketplace.protocol.messages import Order, Receipt, ReceiptStatus
from marketplace.protocol.payloads import Answer, encode_payload
from marketplace.protocol.phases import ENDINGS, EndReason

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
        _C.INTERNAL,
    }
)
# The gateway and this journal disagree about the session: it is not worth a second order.
_SPOILT: Final = frozenset({_C.ORDER_REPLAYED, _C.SESSION_EXPIRED, _C.UNKNOWN_SESSION, _C.ORDER_MISDIRECTED})
_RECONNECTS: Final = 20
_PAUSE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A finished ask: its verified evidence and how it came about.

    `faults` are the bundles, as JSON, of receipts on the way that did not hold.
    """

    model: str
    bundle: Bundle
    checks: tuple[Check, ...]
    answer: Answer
    ceiling_atoms: int
    acknowledged: bool
    attempts: int
    faults: tuple[Any, ...] = ()


class Work:
    """Runs asks for one key; `keep` is told of each order before it leaves and before it is paid."""

    def __init__(self, desk: Desk, pool: SessionPool, books: Books, keep: Keep | None = None) -> None:
        self._desk, self._pool, self._books, self._keep = desk, pool, books, keep
        self._reply_key = sealing.public_key(keccak(b"wattline reply key\0" + desk.key.secret))

    async def run(
        self, ask: Ask, max_cost: str | None = None, *, streamed: bool = False
    ) -> AsyncGenerator[str | Done, None]:
        """Pieces of text as they come, then `Done`.

        Once it has given text, a `streamed` ask is not moved: what was shown cannot be taken back.

        Raises:
            WattError: nobody did it; nothing was charged unless the error says so. Its value `faults` has the
                bundles of receipts that did not hold, for a node may still claim for them.
        """
        faults: list[Any] = []
        try:
            async with aclosing(self._run(ask, max_cost, faults, streamed=streamed)) as pieces:
                async for piece in pieces:
                    yield piece if isinstance(piece, str) else replace(piece, faults=tuple(faults))
        except WattError as error:
            error.values["faults"] = tuple(faults)
            raise

    async def again(self, placed: Placed) -> AsyncGenerator[str | Done, None]:
        """An order that was kept, sent again: the same bytes are the same job. Gives and raises as `run`."""
        try:
            async with aclosing(self._carry_out(placed, 1)) as pieces:
                async for piece in pieces:
                    yield piece
        except WattError as error:
            error.values["faults"] = (error.values["bundle"],) if "bundle" in error.values else ()
            raise

    async def quotes(self, ask: Ask, max_cost: str | None = None) -> list[Quote]:
        """Ranked quotes of the gateway, not yet verified. Charges nothing.

        Raises:
            ProviderFault: not readable, or for another model than the id that was asked for.
        """
        answer = await self._desk.gateway.post("/v1/quotes", quote_body(ask, max_cost))
        found = [Quote.from_json(row) for row in answer.get("quotes", [])]
        exact = ask.exact_model
        if exact and any(to_hex(quote.offer.model_id) != exact for quote in found):
            raise ProviderFault(
                ErrorCode.UNKNOWN_MODEL, "the gateway quotes another model than was asked for"
            )
        return found

    async def _run(
        self, ask: Ask, max_cost: str | None, faults: list[Any], *, streamed: bool
    ) -> AsyncGenerator[str | Done, None]:
        deadline_ms = self._desk.now_ms() + ask.timeout_ms
        tried: set[int] = set()
        last: WattError | None = None
        for attempt in range(1, ask.max_attempts + 1):
            quote = await self._pick(ask, max_cost, tried, deadline_ms)
            if quote is None:
                break
            tried.add(quote.node_id)
            shown = False
            try:
                async with aclosing(self._attempt(ask, quote, deadline_ms, attempt)) as pieces:
                    async for piece in pieces:
                        shown = shown or (streamed and isinstance(piece, str))
                        yield piece
            except (BadRequest, GatewayProblem, ProviderFault) as error:
                faults += [error.values["bundle"]] if "bundle" in error.values else []
                final = shown or getattr(error, "charged", False) or error.code not in ELSEWHERE
                if final or self._desk.now_ms() >= deadline_ms:
                    raise
                last = error
            else:
                return
        raise last or GatewayProblem(ErrorCode.NO_NODE, "No node can take this now.")

    async def _pick(self, ask: Ask, max_cost: str | None, tried: set[int], deadline_ms: int) -> Quote | None:
        quotes = await self.quotes(ask, max_cost)
        able = [q for q in quotes if q.eligible and q.node_id not in tried]
        # Listed nodes first: to find out about any other takes questions to gateway and chain.
        for quote in sorted(able, key=lambda q: not self._pool.may_open(q.node_id)):
            if await self._pool.reaches(quote.node_id, deadline_ms):
                return quote
        if able and not tried:
            return able[0]  # Signing for it says which nodes the key may pay.
        dear = [q.ceiling_atoms for q in quotes if q.why_not == ErrorCode.PRICE_ABOVE_MAX]
        if dear and not tried:
            raise _too_dear(min(dear), ask.max_cost_atoms or 0)
        return None

    async def _attempt(
        self, ask: Ask, quote: Quote, deadline_ms: int, attempt: int
    ) -> AsyncGenerator[str | Done, None]:
        placed = await self._place(ask, quote, deadline_ms)
        if self._keep is not None:
            self._keep.placed(placed)
        async with aclosing(self._carry_out(placed, attempt)) as pieces:
            async for piece in pieces:
                yield piece

    async def _carry_out(self, placed: Placed, attempt: int) -> AsyncGenerator[str | Done, None]:
        chunks: list[bytes] = []
        answer = Answer()
        try:
            async with aclosing(self._events(placed)) as events:
                async for event in events:
                    if event.name == "chunk":
                        text = _add(event, chunks, answer)
                        if text:
                            yield text
                    elif event.name == "receipt":
                        bundle = _bundle(event.data, placed, chunks, self._desk.domain)
                        checks = accept(bundle, placed.session, self._desk.domain)
                        yield await self._finish(placed, bundle, checks, answer, attempt)
        except GatewayProblem as problem:
            self._give_up(placed, problem)
            raise
        except ProviderFault as fault:
            if fault.code is ErrorCode.RECEIPT_INVALID:
                # Neither paid nor counted as ended: no voucher of this session will ever pass this order.
                self._desk.journal.use(placed.session.session_id, SessionUse.RETIRED)
            raise

    async def _place(self, ask: Ask, quote: Quote, deadline_ms: int) -> Placed:
        """A signed order under a verified offer, with its money set aside."""
        desk = self._desk
        epoch = await threaded(check_offer, quote, desk.domain, desk.chain, desk.now_ms())
        payload = ask.payload(to_hex(quote.offer.model_id))
        ceiling = ceiling_atoms(quote.offer, payload)
        if ask.max_cost_atoms is not None and ceiling > ask.max_cost_atoms:
            raise _too_dear(ceiling, ask.max_cost_atoms)
        session, seq = await self._pool.seat(quote.node_id, epoch, ceiling, deadline_ms)
        body, salt = encode_payload(payload), self._desk.around.random_bytes(32)
        order = Order(
            session_id=session.session_id,
            seq=seq,
            offer_hash=quote.offer.digest(self._desk.domain),
            request_hash=request_hash(salt, body),
            max_amount_atoms=ceiling,
            issued_at_ms=self._desk.now_ms(),
            deadline_ms=deadline_ms,
            reply_key=self._reply_key,
        )
        signature = self._desk.key.sign(order, self._desk.domain)
        self._desk.journal.write_order(order, signature)
        return Placed(
            model=ask.model,
            offer=quote.offer,
            offer_signature=quote.offer_signature,
            session=session,
            order=order,
            signature=signature,
            salt=salt,
            payload=body,
            ceiling_atoms=ceiling,
            trace_id=self._desk.around.random_bytes(16).hex(),
        )

    async def _events(self, placed: Placed) -> AsyncGenerator[Event, None]:
        """Chunks in order, each once, then the receipt; attaches again when the connection breaks.

        Raises:
            GatewayProblem: the order was refused or failed, without charge.
            GatewayTrouble: no connection until the deadline; the order stays open in the journal.
        """
        body = {
            "order": placed.order.to_json(),
            "signature": to_hex(placed.signature),
            "salt": to_hex(placed.salt),
            "payload": base64.b64encode(placed.payload).decode(),
            "stream": True,
        }
        span = self._desk.around.random_bytes(8).hex()
        headers = {"traceparent": f"00-{placed.trace_id}-{span}-01"}
        following = 0
        for reconnect in range(_RECONNECTS + 1):
            try:
                async with aclosing(self._desk.gateway.events("/v1/jobs", body, headers=headers)) as events:
                    async for event in events:
                        if event.name == "chunk":
                            if event.data.get("index") != following:
                                continue
                            following += 1
                        self._note(event, placed)
                        yield event
                        if event.name == "receipt":
                            return
            except GatewayTrouble:
                if reconnect == _RECONNECTS or self._desk.now_ms() >= placed.order.deadline_ms:
                    raise
            await self._desk.around.sleep(_PAUSE_SECONDS)
        raise GatewayTrouble(f"The gateway never ended the stream of order {placed.order.seq}.")

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
            if _finish_of(bundle) == "cancelled":
                # Whoever asked for it does not want it from another node either.
                raise BadRequest(ErrorCode.CANCELLED, ENDINGS[EndReason.CANCELLED].sentence)
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

    def _give_up(self, placed: Placed, problem: GatewayProblem) -> None:
        if not problem.charged:
            self._desk.journal.end_seat(placed.session.session_id, placed.order.seq)
        if problem.code in _SPOILT:
            self._desk.journal.use(placed.session.session_id, SessionUse.RETIRED)


def _finish_of(bundle: Bundle) -> str:
    try:
        return Annex.model_validate_json(bundle.annex).finish
    except ValidationError:
        return ""


def _add(event: Event, chunks: list[bytes], answer: Answer) -> str:
    try:
        chunk = decode_base64(event.data["body"])
        text = answer.add(chunk)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProviderFault(ErrorCode.RECEIPT_INVALID, f"a response chunk cannot be read: {error}") from error
    chunks.append(chunk)
    return text


def _bundle(data: dict[str, Any], placed: Placed, chunks: list[bytes], domain: Domain) -> Bundle:
    """The node's receipt and annex beside what we signed and received ourselves."""
    try:
        receipt, signature = signed_message(Receipt, data["receipt"])
        annex = decode_base64(data["annex"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProviderFault(ErrorCode.RECEIPT_INVALID, f"the receipt cannot be read: {error}") from error
    return Bundle(
        domain=domain,
        offer=placed.offer,
        offer_signature=placed.offer_signature,
        order=placed.order,
        order_signature=placed.signature,
        key=placed.session.key,
        receipt=receipt,
        receipt_signature=signature,
        annex=annex,
        salt=placed.salt,
        payload=placed.payload,
        chunks=tuple(chunks),
        node_id=placed.session.node_id,
        signer=placed.session.signer,
        epoch=placed.session.key_epoch,
        settlement=None,
        trace_id=str(data.get("trace_id") or placed.trace_id),
        job_id=str(data.get("job_id") or ""),
        receipt_id=str(data.get("id") or data.get("receipt_id") or ""),
    )


def _too_dear(ceiling: int, most: int) -> BadRequest:
    return BadRequest(
        ErrorCode.PRICE_ABOVE_MAX,
        f"No node will do this for {most} atoms; the cheapest asks {ceiling}.",
        ceiling_atoms=ceiling,
        max_atoms=most,
    )

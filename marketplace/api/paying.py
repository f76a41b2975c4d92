"""Calls of somebody without a key: ask for a payment, take it, and place the job it is for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from fastapi import Request

from marketplace.api import x402
from marketplace.chain.till import Paid
from marketplace.dispatch.terms import Ask, Once
from marketplace.flow import Market
from marketplace.funding import receivers as funding
from marketplace.funding.receivers import Receivers, Wanted402
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.payloads import ChatPayload, Payload, encode_payload
from marketplace.protocol.quotes import Quote
from marketplace.quoting import rules as quoting_rules
from marketplace.quoting import step as quoting
from marketplace.store import offers, payments
from marketplace.store.tables import PaymentRow, Tx

# What a client that insists on a key may send instead of one.
NO_KEY: Final = "x402"
# A session holds something, even for a job that is free.
_LEAST_ATOMS: Final = 1
_LOOK_SECONDS: Final = 0.1
_LONGEST_WAIT_SECONDS: Final = 30
# After these an order under the same payment can never be taken.
_TOO_LATE: Final = frozenset({ErrorCode.SESSION_EXPIRED, ErrorCode.OFFER_EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call without a key: `payload` names no model yet; `seeded` when the caller named a seed."""

    model: str
    payload: Payload
    seeded: bool
    trace_id: str
    max_cost_atoms: int | None
    node_id: int | None
    streamed: bool
    fingerprint: str
    keep_ms: int | None = None


def wants_to_pay(market: Market, request: Request) -> bool:
    """Whether this call has no key, or brings its own payment."""
    if market.receivers is None:
        return False
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    has_key = kind.lower() == "bearer" and secret.strip() not in ("", NO_KEY)
    return not has_key or x402.PAYMENT_SIGNATURE in request.headers


async def paid(market: Market, request: Request, call: Call) -> Ask:
    """Takes the payment a call brings; gives the order it is for, the same for the same payment.

    Raises:
        BadRequest: no payment, or one that is not taken: `payment_required` brings a fresh quote.
    """
    here = _here(market)
    request.state.keyless = call
    header = request.headers.get(x402.PAYMENT_SIGNATURE)
    if header is None:
        await _ask(market, request, call, "")
    sent = x402.read(header, x402.network_of(here.deployment.chain_id), here.deployment.token)
    try:
        row = await _take(market, call, sent)
        tx_hash = await _opened(market, row)
    except BadRequest as refused:
        if refused.code is not ErrorCode.PAYMENT_REQUIRED:
            raise
        await _ask(market, request, call, refused.detail)
    ask = _asked(here, call, row, tx_hash)
    request.state.payment_headers = headers_of(ask.payment)
    return ask


async def again(market: Market, request: Request, refused: BadRequest) -> None:
    """After a refused order: a payment that came too late for it gets a fresh quote. Raises `BadRequest`."""
    call = getattr(request.state, "keyless", None)
    if isinstance(call, Call) and refused.code in _TOO_LATE:
        why = "this payment's time is over; what it left comes back to its payer"
        await _ask(market, request, call, why)


def told(payment: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a payer's answer says of its payment; nothing for everybody else."""
    return {"x402_payment_response": payment} if payment else {}


async def _ask(market: Market, request: Request, call: Call, why: str) -> NoReturn:
    """Refuses with a fresh quote. Raises `BadRequest`."""
    here = _here(market)
    salt, now_at = market.random(32), market.clock() // 1000
    need = quoting_rules.need_of(call.payload, call.max_cost_atoms, call.node_id)
    least = market.deployment.min_stake_atoms
    found = await market.read(
        lambda tx: quoting.quote(tx, call.model, need, now_ms=market.clock(), min_stake_atoms=least)
    )
    best = next((quote for quote in found.quotes if quote.eligible), None)
    if best is None:
        raise BadRequest(*quoting_rules.refusal(found.quotes, need))
    wanted = Wanted402(
        node_id=best.listing.node_id,
        offer_hash=best.listing.offer_hash,
        ceiling_atoms=max(best.ceiling_atoms, _LEAST_ATOMS),
        payload=_payload(here, call, found.model_id, salt),
    )
    pay_before = min(now_at + here.window_seconds, best.listing.offer.valid_until)
    quote = here.quote(wanted, salt, pay_before)
    detail = why or f"this call costs at most {quote.amount_atoms} atoms; what it does not cost comes back"
    accepts = x402.requirements(quote, here.receiver(quote), here.token, pay_before - now_at)
    header = x402.required(str(request.url), f"{call.payload.task} by {found.model_name}", accepts, detail)
    headers = {x402.PAYMENT_REQUIRED: header, "cache-control": "no-store"}
    if why:
        failed = x402.not_settled(x402.network_of(here.deployment.chain_id), why)
        headers[x402.PAYMENT_RESPONSE] = x402.encode(failed)
    raise BadRequest(ErrorCode.PAYMENT_REQUIRED, detail, headers=headers)


async def _take(market: Market, call: Call, sent: x402.Sent) -> PaymentRow:
    here, now_ms = _here(market), market.clock()

    def work(tx: Tx) -> PaymentRow:
        row = payments.find(tx, sent.receiver)
        if row is not None:
            _check_same(row, call, sent.paid)
        else:
            row = _kept(tx, here, call, sent, now_ms)
        funding.send(tx, here, row, now_ms)
        return row

    return await market.write(work)


def _kept(tx: Tx, here: Receivers, call: Call, sent: x402.Sent, now_ms: int) -> PaymentRow:
    quote, model_id = _quoted(tx, here, call, sent)
    here.check(quote, sent.paid, now_ms // 1000)
    named = funding.identifier_of(sent.paid.payer, sent.identifier) if sent.identifier else None
    former = payments.find_identified(tx, named) if named else None
    if former is not None:
        # The payer paid this call before and does not know it: its new authorization stays unused.
        _check_call(former, call)
        return former
    called = funding.Called(model_id=model_id, fingerprint=call.fingerprint, identifier=named)
    return funding.keep(tx, here, quote, sent.paid, called, now_ms)


def _quoted(tx: Tx, here: Receivers, call: Call, sent: x402.Sent) -> tuple[Quote, str]:
    """The quote that is paid, made anew of this very request; and the model it is for."""
    listing = next(iter(offers.listings(tx, offer_hash=sent.offer_hash)), None)
    if listing is None:
        raise BadRequest(ErrorCode.PAYMENT_REQUIRED, "its node no longer offers this model")
    if not listing.connected or listing.draining:
        raise BadRequest(ErrorCode.PAYMENT_REQUIRED, f"node {listing.node_id} takes no orders now")
    wanted = Wanted402(
        node_id=listing.node_id,
        offer_hash=listing.offer_hash,
        ceiling_atoms=max(quoting_rules.ceiling_of(listing.offer, call.payload), _LEAST_ATOMS),
        payload=_payload(here, call, listing.model_id, sent.salt),
    )
    if sent.pay_before > listing.offer.valid_until or wanted.ceiling_atoms > quoting_rules.MAX_ATOMS:
        raise BadRequest(ErrorCode.PAYMENT_REQUIRED, "no quote of ours has these figures")
    quote = here.quote(wanted, sent.salt, sent.pay_before)
    if here.receiver(quote) != sent.receiver:
        raise BadRequest(ErrorCode.PAYMENT_REQUIRED, "the payment is for another request than this one")
    return quote, listing.model_id


def _check_same(row: PaymentRow, call: Call, paid: Paid) -> None:
    if not funding.is_same(row, paid):
        raise BadRequest(ErrorCode.INVALID_REQUEST, "this quote has another payment; ask for a new quote")
    _check_call(row, call)


def _check_call(row: PaymentRow, call: Call) -> None:
    if row.fingerprint != call.fingerprint:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "this payment was made for another call")


async def _opened(market: Market, row: PaymentRow) -> str | None:
    """Waits until the payment's session is there; the transaction that opened it. Raises `BadRequest`."""
    for _ in range(int(_LONGEST_WAIT_SECONDS / _LOOK_SECONDS)):
        found = await market.read(lambda tx: funding.standing(tx, row))
        if found.is_open:
            return found.tx_hash
        if found.problem is not None and not found.is_used:
            raise BadRequest(ErrorCode.PAYMENT_REQUIRED, f"the payment was not taken: {found.problem}")
        await asyncio.sleep(_LOOK_SECONDS)
    detail = "the payment is on its way; send the same call with the same payment again"
    raise BadRequest(ErrorCode.NOT_READY, detail, receiver=row.receiver)


def _asked(here: Receivers, call: Call, row: PaymentRow, tx_hash: str | None) -> Ask:
    quote = Quote.decode(row.quote)
    payload = call.payload
    if isinstance(payload, ChatPayload) and not call.seeded:
        payload = payload.model_copy(update={"seed": here.seed(quote.salt)})
    said = x402.settled(
        x402.network_of(here.deployment.chain_id),
        row.payer,
        tx_hash,
        quote.amount_atoms,
        receiver=row.receiver,
        sessionId=row.session_id,
        refundAfter=here.refund_at(quote),
    )
    return Ask(
        key=here.key(quote),
        model=row.model_id,
        payload=payload,
        trace_id=call.trace_id,
        max_cost_atoms=quote.amount_atoms,
        node_id=quote.node_id,
        streamed=call.streamed,
        keep_ms=call.keep_ms,
        once=Once(name=keccak(f"x402\0{row.receiver}".encode()).hex(), fingerprint=call.fingerprint),
        offer_hash=to_hex(quote.offer_hash),
        salt=here.order_salt(quote.salt),
        payment=said,
    )


def headers_of(payment: Mapping[str, Any] | None) -> dict[str, str]:
    """Header that tells a payer that the payment was taken; empty for everybody else."""
    return {x402.PAYMENT_RESPONSE: x402.encode(dict(payment))} if payment else {}


def _payload(here: Receivers, call: Call, model_id: str, salt: bytes) -> bytes:
    changes: dict[str, Any] = {"model": model_id}
    if isinstance(call.payload, ChatPayload) and not call.seeded:
        changes["seed"] = here.seed(salt)
    return encode_payload(call.payload.model_copy(update=changes))


def _here(market: Market) -> Receivers:
    if market.receivers is None:
        raise BadRequest(ErrorCode.MISSING_KEY)
    return market.receivers

"""Checks of a receipt, each with a name. Offline: no network, no clock; only the bundle is read.

A bundle alone proves that *somebody* with the named node key signed this answer for this order at this price.
That the key is a registered node's, that the session is funded, and that it was paid, only the chain can say:
those checks are listed as not made (`ok` is None) until `anchors.check_on_chain` makes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from marketplace.client.bundle import Bundle
from marketplace.protocol.annex import Annex, AnyAnnex, exec_hash, read_annex
from marketplace.protocol.eip712 import Message
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.ids import receipt_id
from marketplace.protocol.merkle import request_hash, response_hash
from marketplace.protocol.messages import ReceiptStatus
from marketplace.protocol.payloads import (
    Answer,
    ChatPayload,
    Payload,
    parse_payload,
    seed_of,
    units_in_ceiling,
    units_out_ceiling,
)
from marketplace.protocol.pricing import amount_due
from marketplace.protocol.signing import BadSignature, signer_of
from marketplace.protocol.trace import unpack_tokens


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: passed, failed, or (None) not looked at yet."""

    name: str
    ok: bool | None
    detail: str


CHAIN_CHECKS: Final = ("domain", "node", "session", "settlement")


def verify_receipt(data: Any) -> list[Check]:
    """All checks of `GET /v1/receipts/{id}`'s JSON; those that need the chain are None.

    Never raises for what is in `data`: an unreadable bundle is one failed check.
    """
    try:
        bundle = Bundle.from_json(data)
    except BadRequest as error:
        return [Check("format", ok=False, detail=error.detail), *not_made()]
    return [*check_offline(bundle), *not_made()]


def check_offline(bundle: Bundle) -> list[Check]:
    """The checks that need nothing but the bundle, in the order of the job's life."""
    return [Check("format", True, "bundle version 1"), *(check(bundle) for check in _OFFLINE)]


def not_made() -> list[Check]:
    """The chain's checks as not looked at."""
    return [Check(name, None, f"{_NEEDS[name]}: needs the chain (--rpc)") for name in CHAIN_CHECKS]


def passed(checks: Iterable[Check]) -> bool:
    """Whether nothing that was looked at failed."""
    return all(check.ok is not False for check in checks)


def failures(checks: Iterable[Check]) -> list[Check]:
    """What failed."""
    return [check for check in checks if check.ok is False]


def _offer_signature(bundle: Bundle) -> Check:
    return _signed_by("offer signature", bundle, bundle.offer, bundle.offer_signature, bundle.signer)


def _offer_terms(bundle: Bundle) -> Check:
    offer, order = bundle.offer, bundle.order
    if offer.digest(bundle.domain) != order.offer_hash:
        return Check("offer", False, "the order names another offer")
    if offer.node_id != bundle.node_id:
        return Check("offer", False, f"the offer is of node {offer.node_id}, not {bundle.node_id}")
    if order.issued_at_ms >= offer.valid_until * 1000:
        return Check("offer", False, "the offer had expired when the order was signed")
    return Check("offer", True, f"ordered under this offer of node {offer.node_id}")


def _order_signature(bundle: Bundle) -> Check:
    if bundle.key:
        return _signed_by("order signature", bundle, bundle.order, bundle.order_signature, bundle.key)
    try:
        key = signer_of(bundle.order, bundle.domain, bundle.order_signature)
    except BadSignature as error:
        return Check("order signature", False, str(error))
    return Check("order signature", None, f"by {key}; whether that is the session's key needs the chain")


def _receipt_signature(bundle: Bundle) -> Check:
    return _signed_by("receipt signature", bundle, bundle.receipt, bundle.receipt_signature, bundle.signer)


def _receipt_identity(bundle: Bundle) -> Check:
    digest = bundle.receipt.digest(bundle.domain)
    if bundle.receipt_id and bundle.receipt_id != receipt_id(digest):
        return Check("receipt id", False, f"the receipt is {receipt_id(digest)}, not {bundle.receipt_id}")
    return Check("receipt id", True, receipt_id(digest))


def _order_hash(bundle: Bundle) -> Check:
    ok = bundle.receipt.order_hash == bundle.order.digest(bundle.domain)
    return Check(
        "order hash", ok, "the receipt is for this order" if ok else "the receipt is for another order"
    )


def _request(bundle: Bundle) -> Check:
    ok = bundle.order.request_hash == request_hash(bundle.salt, bundle.payload)
    return Check("request hash", ok, "matches the payload" if ok else "the payload is not what was ordered")


def _model(bundle: Bundle) -> Check:
    payload = _payload(bundle)
    if payload is None:
        return Check("model", False, "the payload cannot be read")
    ok = payload.model == to_hex(bundle.offer.model_id)
    return Check("model", ok, payload.model if ok else "the payload names another model than the offer")


def _response(bundle: Bundle) -> Check:
    ok = bundle.receipt.response_hash == response_hash(bundle.salt, bundle.chunks)
    count = len(bundle.chunks)
    return Check(
        "response hash", ok, f"matches {count} chunks" if ok else "the answer is not what was signed"
    )


def _answer(bundle: Bundle) -> Check:
    try:
        answer = Answer(bundle.chunks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Check("answer", False, f"a chunk cannot be read: {error}")
    payload = _payload(bundle)
    status = bundle.receipt.status
    if payload is None or status == ReceiptStatus.FAILED:
        return Check("answer", True, "every chunk can be read")
    problem = payload.misfit(answer, whole=status == ReceiptStatus.DONE)
    return Check("answer", problem is None, problem or f"every chunk can be read, and answers {payload.task}")


def _execution(bundle: Bundle) -> Check:
    ok = bundle.receipt.exec_hash == exec_hash(bundle.annex)
    return Check("exec hash", ok, "matches the annex" if ok else "the annex is not what was signed")


def _annex(bundle: Bundle) -> Check:
    annex, receipt = _annex_of(bundle), bundle.receipt
    if annex is None:
        return Check("annex", False, "the annex cannot be read")
    if (annex.units_in, annex.units_out) != (receipt.units_in, receipt.units_out):
        return Check("annex", False, "the annex counts other units than the receipt")
    if annex.trace_id != bundle.trace_id:
        return Check("annex", False, f"the annex is of trace {annex.trace_id}")
    if annex.model != to_hex(bundle.offer.model_id):
        return Check("annex", False, f"it says that model {annex.model} was run")
    if isinstance(annex, Annex) and (wrong := _misstated(annex, _payload(bundle))):
        return Check("annex", False, wrong)
    return Check("annex", True, f"{annex.engine}, {annex.dtype}; energy by {annex.energy_method} (attested)")


def _misstated(annex: Annex, payload: Payload | None) -> str:
    """What an annex says otherwise than request and receipt; empty when they agree."""
    sampling = annex.sampling
    if sampling is not None and isinstance(payload, ChatPayload):
        asked = (payload.temperature_milli, payload.top_p_milli)
        if (sampling.temperature_milli, sampling.top_p_milli) != asked:
            return "it was sampled otherwise than asked"
        if sampling.max_tokens > payload.max_tokens:
            return "it allows itself more tokens than asked"
    tokens = unpack_tokens(annex.token_ids)
    if tokens and len(tokens) != annex.units_out:
        return f"it counts {annex.units_out} output tokens and lists {len(tokens)}"
    return ""


def _seed(bundle: Bundle) -> Check:
    """The seed is the request's, else the order's; never the node's choice (PROTOCOL §7)."""
    payload, annex = _payload(bundle), _annex_of(bundle)
    if payload is None or annex is None:
        return Check("seed", False, "payload or annex cannot be read")
    if bundle.receipt.status == ReceiptStatus.FAILED:
        return Check("seed", True, "nothing was sampled")
    expected = str(seed_of(payload, bundle.receipt.order_hash))
    return Check("seed", annex.seed == expected, f"{annex.seed}, as the request or its order says")


def _units(bundle: Bundle) -> Check:
    payload, receipt = _payload(bundle), bundle.receipt
    if payload is None:
        return Check("units", False, "the payload cannot be read")
    most_in, most_out = units_in_ceiling(payload), units_out_ceiling(payload)
    ok = receipt.units_in <= most_in and receipt.units_out <= most_out
    return Check("units", ok, f"{receipt.units_in} ≤ {most_in} in, {receipt.units_out} ≤ {most_out} out")


def _status(bundle: Bundle) -> Check:
    status, amount = bundle.receipt.status, bundle.receipt.amount_atoms
    if status not in set(ReceiptStatus):
        return Check("status", False, f"{status} is no status")
    if status == ReceiptStatus.FAILED and amount:
        return Check("status", False, f"a failed job asks for {amount} atoms")
    return Check("status", True, ReceiptStatus(status).name.lower().replace("_", " "))


def _price_cap(bundle: Bundle) -> Check:
    amount, most = bundle.receipt.amount_atoms, bundle.order.max_amount_atoms
    return Check("price cap", amount <= most, f"{amount} ≤ {most} atoms, the order's maximum")


def _price(bundle: Bundle) -> Check:
    receipt = bundle.receipt
    due = amount_due(
        bundle.offer,
        bundle.order,
        units_in=receipt.units_in,
        units_out=receipt.units_out,
        finished_at_ms=receipt.finished_at_ms,
        status=receipt.status,
    )
    return Check(
        "price", receipt.amount_atoms == due, f"asks {receipt.amount_atoms} atoms, the offer makes it {due}"
    )


def _deadline(bundle: Bundle) -> Check:
    receipt, order = bundle.receipt, bundle.order
    if receipt.started_at_ms > receipt.finished_at_ms:
        return Check("deadline", False, "it finished before it started")
    if receipt.finished_at_ms > order.deadline_ms:
        free = receipt.amount_atoms == 0
        return Check("deadline", free, "late, and free" if free else "late, and not free")
    left_ms = order.deadline_ms - receipt.finished_at_ms
    return Check("deadline", True, f"{left_ms} ms before the deadline")


_OFFLINE: Final[tuple[Callable[[Bundle], Check], ...]] = (
    _offer_signature,
    _offer_terms,
    _order_signature,
    _request,
    _model,
    _order_hash,
    _receipt_signature,
    _receipt_identity,
    _response,
    _answer,
    _execution,
    _annex,
    _seed,
    _units,
    _status,
    _price_cap,
    _price,
    _deadline,
)
_NEEDS: Final = {
    "domain": "whether these are the market's contracts",
    "node": "whether the key was the node's in that epoch",
    "session": "whether the session was opened for this key and node",
    "settlement": "whether the transaction paid it",
}


def _signed_by(name: str, bundle: Bundle, message: Message, signature: bytes, expected: str) -> Check:
    try:
        actual = signer_of(message, bundle.domain, signature)
    except BadSignature as error:
        return Check(name, False, str(error))
    if actual != expected:
        return Check(name, False, f"signed by {actual}, not by {expected}")
    return Check(name, True, expected)


def _payload(bundle: Bundle) -> Payload | None:
    try:
        return parse_payload(bundle.payload)
    except BadRequest:
        return None


def _annex_of(bundle: Bundle) -> AnyAnnex | None:
    try:
        return read_annex(bundle.annex)
    except ValueError:
        return None

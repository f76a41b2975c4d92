"""Errors by blame, and every error code with its HTTP status and remedy.

WattError
├── BadRequest     the caller's fault; nothing happened, nothing was charged
├── LostRace       somebody else moved on; drop the result
├── ChainTrouble   the chain or its RPC; retry later
├── ProviderFault  a node broke the protocol; keep the evidence
└── Broken         our own defect; stop
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

T = TypeVar("T")


class ErrorCode(StrEnum):
    """Stable names of everything that can go wrong for a caller."""

    MALFORMED_BODY = "malformed_body"
    INVALID_REQUEST = "invalid_request"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_DEEP = "body_too_deep"
    BODY_COMPRESSED = "body_compressed"
    BODY_TOO_SLOW = "body_too_slow"
    UNSUPPORTED = "unsupported"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MALFORMED_PAYMENT = "malformed_payment"
    PAYMENT_REQUIRED = "payment_required"
    MISSING_KEY = "missing_key"
    UNKNOWN_KEY = "unknown_key"
    KEY_REVOKED = "key_revoked"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    BUDGET_EXCEEDED = "budget_exceeded"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_MODEL = "unknown_model"
    UNKNOWN_NODE = "unknown_node"
    UNKNOWN_JOB = "unknown_job"
    UNKNOWN_RECEIPT = "unknown_receipt"
    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_FILE = "unknown_file"
    UNKNOWN_BATCH = "unknown_batch"
    INVALID_FILE = "invalid_file"
    FILE_IN_USE = "file_in_use"
    UNKNOWN_WEBHOOK = "unknown_webhook"
    WEBHOOK_REFUSED = "webhook_refused"
    NO_SESSION = "no_session"
    SESSION_UNDERFUNDED = "session_underfunded"
    SESSION_EXPIRED = "session_expired"
    PRICE_ABOVE_MAX = "price_above_max"
    EXPOSURE_EXCEEDED = "exposure_exceeded"
    OFFER_UNKNOWN = "offer_unknown"
    OFFER_EXPIRED = "offer_expired"
    ORDER_REPLAYED = "order_replayed"
    ORDER_EXPIRED = "order_expired"
    ORDER_MISDIRECTED = "order_misdirected"
    CLOCK_SKEW = "clock_skew"
    REQUEST_HASH_MISMATCH = "request_hash_mismatch"
    INPUT_TOO_LONG = "input_too_long"
    RECEIPT_INVALID = "receipt_invalid"
    VOUCHER_MISMATCH = "voucher_mismatch"
    NO_NODE = "no_node"
    NODE_BUSY = "node_busy"
    NODE_FAILED = "node_failed"
    PARTLY_DELIVERED = "partly_delivered"
    STREAM_DIVERGED = "stream_diverged"
    LEASE_LOST = "lease_lost"
    DEADLINE_PASSED = "deadline_passed"
    CANCELLED = "cancelled"
    CONTENT_DELETED = "content_deleted"
    SEAL_UNUSABLE = "seal_unusable"
    RATE_LIMITED = "rate_limited"
    CHAIN_UNAVAILABLE = "chain_unavailable"
    WRONG_CHAIN = "wrong_chain"
    TRANSACTION_REVERTED = "transaction_reverted"
    NOT_READY = "not_ready"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """How a code appears to people: HTTP status, short title, remedy, whether a retry can help."""

    status: int
    title: str
    hint: str
    retryable: bool = False


_C = ErrorCode
SPECS: Final[dict[ErrorCode, ErrorSpec]] = {
    _C.MALFORMED_BODY: ErrorSpec(400, "Body is not readable", "Send one JSON object in UTF-8."),
    _C.INVALID_REQUEST: ErrorSpec(422, "Request is invalid", "Correct the field named in the detail."),
    _C.BODY_TOO_LARGE: ErrorSpec(413, "Body is too large", "Send less in one call; split the input."),
    _C.BODY_TOO_DEEP: ErrorSpec(400, "Body is nested too deep", "Nest arrays and objects less."),
    _C.BODY_COMPRESSED: ErrorSpec(415, "Body is compressed", "Send it as it is, without Content-Encoding."),
    _C.BODY_TOO_SLOW: ErrorSpec(408, "Body did not arrive in time", "Send the whole body at once.", True),
    _C.UNSUPPORTED: ErrorSpec(422, "Not supported", "Leave out what is named, or do as it says."),
    _C.NOT_FOUND: ErrorSpec(404, "No such page", "See /docs for the routes of this gateway."),
    _C.METHOD_NOT_ALLOWED: ErrorSpec(405, "Method not allowed", "See /docs for the methods of this route."),
    _C.MALFORMED_PAYMENT: ErrorSpec(
        400,
        "Payment is not readable",
        "Nothing was taken; send the call without a payment for a fresh quote.",
    ),
    _C.PAYMENT_REQUIRED: ErrorSpec(
        402,
        "Payment required",
        "Pay as the PAYMENT-REQUIRED header says (x402), or send Authorization: Bearer sk-watt-…",
    ),
    _C.MISSING_KEY: ErrorSpec(401, "No API key", "Send Authorization: Bearer sk-watt-…"),
    _C.UNKNOWN_KEY: ErrorSpec(401, "API key is not known", "Create one: POST /v1/keys, then open a session."),
    _C.KEY_REVOKED: ErrorSpec(401, "Key is over", "Make another one; what it ordered before goes on."),
    _C.MODEL_NOT_ALLOWED: ErrorSpec(403, "Key may not buy this model", "Choose a model on the key's list."),
    _C.BUDGET_EXCEEDED: ErrorSpec(402, "Key's budget is too small", "Lower max_tokens, or use another key."),
    _C.IDEMPOTENCY_MISMATCH: ErrorSpec(
        422, "Idempotency key was used for another call", "Take a fresh key for each different call."
    ),
    _C.BAD_SIGNATURE: ErrorSpec(401, "Signature does not fit", "Sign the exact message with the named key."),
    _C.UNKNOWN_MODEL: ErrorSpec(404, "Model is not offered", "List what is on offer: GET /v1/models."),
    _C.UNKNOWN_NODE: ErrorSpec(404, "Node is not known", "List the nodes: GET /v1/nodes."),
    _C.UNKNOWN_JOB: ErrorSpec(404, "Job is not known", "Check the job id, and the key you ask with."),
    _C.UNKNOWN_RECEIPT: ErrorSpec(404, "Receipt is not known", "Check the id; a running job has none yet."),
    _C.UNKNOWN_SESSION: ErrorSpec(404, "Session is not known", "Open one on-chain and wait for its block."),
    _C.UNKNOWN_FILE: ErrorSpec(404, "File is not known", "Check the file id, and the key you ask with."),
    _C.UNKNOWN_BATCH: ErrorSpec(404, "Batch is not known", "Check the batch id, and the key you ask with."),
    _C.INVALID_FILE: ErrorSpec(422, "File cannot be run", "Correct the named line, send it again."),
    _C.FILE_IN_USE: ErrorSpec(409, "File is in use", "Cancel the batch that reads it, or wait for its end."),
    _C.UNKNOWN_WEBHOOK: ErrorSpec(404, "Webhook is not known", "List yours: GET /v1/webhooks."),
    _C.WEBHOOK_REFUSED: ErrorSpec(422, "Address is not allowed", "Give a public http or https address."),
    _C.NO_SESSION: ErrorSpec(402, "No open session", "Open a session for this key: POST /v1/sessions."),
    _C.SESSION_UNDERFUNDED: ErrorSpec(402, "Session has too little left", "Top it up, or lower max_tokens."),
    _C.SESSION_EXPIRED: ErrorSpec(402, "Session has expired", "Open a new session."),
    _C.PRICE_ABOVE_MAX: ErrorSpec(402, "Price is above your maximum", "Raise max_cost or lower max_tokens."),
    _C.EXPOSURE_EXCEEDED: ErrorSpec(
        402, "Too much delivered without a voucher", "Sign a voucher for the delivered jobs first."
    ),
    _C.OFFER_UNKNOWN: ErrorSpec(404, "Offer is not known", "Ask for a fresh quote: POST /v1/quotes."),
    _C.OFFER_EXPIRED: ErrorSpec(422, "Offer has expired", "Ask for a fresh quote: POST /v1/quotes."),
    _C.ORDER_REPLAYED: ErrorSpec(422, "Order was already placed", "Ask for its job, or use the next seq."),
    _C.ORDER_EXPIRED: ErrorSpec(422, "Order is past its deadline", "Sign a new order with a later deadline."),
    _C.ORDER_MISDIRECTED: ErrorSpec(422, "Order is for another node", "Use a session opened for this node."),
    _C.CLOCK_SKEW: ErrorSpec(422, "Clocks differ by more than 2 s", "Set your clock, then sign again."),
    _C.REQUEST_HASH_MISMATCH: ErrorSpec(422, "Payload is not what was signed", "Send the signed bytes."),
    _C.INPUT_TOO_LONG: ErrorSpec(422, "Input is longer than the model reads", "Shorten the input."),
    _C.RECEIPT_INVALID: ErrorSpec(502, "Node sent a bad receipt", "Nothing was charged; try again.", True),
    _C.VOUCHER_MISMATCH: ErrorSpec(422, "Voucher does not fit the receipts", "Sum the receipts again."),
    _C.NO_NODE: ErrorSpec(503, "No node can take this", "Try again shortly, or choose another model.", True),
    _C.NODE_BUSY: ErrorSpec(503, "Node is busy", "Try again shortly.", True),
    _C.NODE_FAILED: ErrorSpec(502, "Node failed", "Nothing was charged; try again.", True),
    _C.PARTLY_DELIVERED: ErrorSpec(
        502,
        "Some choices failed",
        "The same call again with the same Idempotency-Key pays only for what failed.",
        True,
    ),
    _C.STREAM_DIVERGED: ErrorSpec(
        502, "Stream broke off", "The whole answer is there: ask for the job named in the detail."
    ),
    _C.LEASE_LOST: ErrorSpec(503, "Lease was lost", "Another node took over.", True),
    _C.DEADLINE_PASSED: ErrorSpec(504, "Deadline passed", "Nothing was charged; allow more time.", True),
    _C.CANCELLED: ErrorSpec(410, "Job was cancelled", "Nothing was charged; place it again if you want it."),
    _C.CONTENT_DELETED: ErrorSpec(
        410, "Content was deleted", "Use your own copy; hashes, amounts and receipt stay: GET /v1/jobs/{id}."
    ),
    _C.SEAL_UNUSABLE: ErrorSpec(
        422, "Seal does not open", "Seal it anew to the node's key on the chain, or order without a seal."
    ),
    _C.RATE_LIMITED: ErrorSpec(429, "Too many calls", "Wait as Retry-After says.", True),
    _C.CHAIN_UNAVAILABLE: ErrorSpec(503, "Chain does not answer", "Check the RPC endpoint.", True),
    _C.WRONG_CHAIN: ErrorSpec(503, "Chain is not the expected one", "Check RPC URL and deployment file."),
    _C.TRANSACTION_REVERTED: ErrorSpec(422, "Transaction was refused", "See the reason in the detail."),
    _C.NOT_READY: ErrorSpec(503, "Gateway is starting", "Wait until /readyz answers 200.", True),
    _C.INTERNAL: ErrorSpec(500, "Our defect", "Report the request id, and send the same call again.", True),
}


class WattError(Exception):
    """Base of our errors: a code, what happened, and the values that show it."""

    def __init__(self, code: ErrorCode, detail: str = "", **values: object) -> None:
        self.code = code
        self.values = values
        self.detail = detail or SPECS[code].title
        super().__init__(self.detail)

    @property
    def spec(self) -> ErrorSpec:
        """Status, title and remedy of this error's code."""
        return SPECS[self.code]


class BadRequest(WattError):
    """The caller asked for something that cannot be; nothing happened."""


class LostRace(WattError):
    """Somebody else moved this job on; drop the result."""


class ChainTrouble(WattError):
    """The chain did not answer or refused; retry when it is back."""


class ProviderFault(WattError):
    """A node broke the protocol; the values are the evidence."""


class Broken(WattError):
    """A promise of our own does not hold; stop and report."""


def attempted(call: Callable[[], T]) -> T | Exception:
    """What a call gives, or the error it ended with: for those who do the work of many and must go on."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # whatever it is, it is for whom the work was done
        return error

"""What a buyer can be told of by webhook, and how a message is signed (Standard Webhooks, symmetric)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from enum import StrEnum
from typing import Final

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"


class Event(StrEnum):
    """Something that happened to what a key pays for."""

    JOB_ORDERED = "job.ordered"
    JOB_DELIVERED = "job.delivered"
    JOB_SETTLED = "job.settled"
    JOB_FAILED = "job.failed"
    JOB_REFUNDED = "job.refunded"
    BUDGET_WARNING = "budget.warning"


EVENT_DOCS: Final[dict[Event, str]] = {
    Event.JOB_ORDERED: "A signed order was stored; its ceiling is set aside.",
    Event.JOB_DELIVERED: "Answer and receipt are stored; `cost_atoms` is what the receipt charges.",
    Event.JOB_SETTLED: "The chain has paid the job; `settled_tx` names the transaction.",
    Event.JOB_FAILED: "The job ended without an answer, by failure, deadline or cancelling; it is free.",
    Event.JOB_REFUNDED: "The job was delivered and cost nothing in the end; `end_reason` says why.",
    Event.BUDGET_WARNING: "Receipts of a session come to 80 % of what was deposited in it.",
}


def secret_text(secret: bytes) -> str:
    """A secret as its owner keeps it."""
    return PREFIX + base64.b64encode(secret).decode()


def secret_bytes(text: str) -> bytes:
    """A secret of its text. Raises `ValueError`."""
    return base64.b64decode(text.removeprefix(PREFIX), validate=True)


def sign(secret: bytes, message_id: str, timestamp_at: int, body: bytes) -> str:
    """`v1,…`: HMAC-SHA256 over id, time in Unix seconds, and the body as it is sent."""
    told = f"{message_id}.{timestamp_at}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, told, hashlib.sha256)).decode()


def headers(secret: bytes, message_id: str, timestamp_at: int, body: bytes) -> dict[str, str]:
    """Headers of one sending; a later one has its own time and signature, and the same id."""
    return {
        "content-type": "application/json",
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp_at),
        SIGNATURE_HEADER: sign(secret, message_id, timestamp_at, body),
    }

"""Webhooks of a key, and their messages: load → claim → (send) → note. One transaction each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from marketplace.hooks import rules
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.webhooks import Event
from marketplace.store import jobs, receipts, sessions, webhooks
from marketplace.store.tables import DeliveryRow, JobRow, Tx, WebhookRow
from marketplace.store.webhooks import DeliveryState

# A sending that was claimed and never answered for is due again after this long.
CLAIM_MS: Final = 60_000
FETCH_MS: Final = 60 * 60 * 1000
MOST_FETCHED: Final = 20
KEEP_MS: Final = 7 * 24 * 60 * 60 * 1000
_NUMBER_DIGITS: Final = 9  # more would not fit its column
_OWN_TIME: Final = {
    Event.JOB_ORDERED: "created_at_ms",
    Event.JOB_DELIVERED: "ended_at_ms",
    Event.JOB_FAILED: "ended_at_ms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """A claimed message, ready to be signed and sent; `attempts` counts this one."""

    number: int
    webhook_id: str
    url: str
    body: bytes
    attempts: int

    @property
    def message_id(self) -> str:
        """The same for every sending of this message, and no other's."""
        return message_id(self.webhook_id, self.number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a sending: the receiver's status, or why there is none."""

    status: int | None = None
    problem: str | None = None

    @property
    def taken(self) -> bool:
        """Whether the receiver has the message."""
        return self.status is not None and 200 <= self.status < 300


def secret(derive: Callable[[str], bytes], webhook_id: str) -> bytes:
    """What a webhook's messages are signed with, of the gateway's own secret; it is stored nowhere."""
    return derive(f"webhook {webhook_id}")


def message_id(webhook_id: str, number: int) -> str:
    """Public id of a message, as in `msg_q3x…_17`."""
    return f"msg_{webhook_id.removeprefix('wh_')}_{number}"


def number_of(message: str) -> int:
    """The number in a message's id. Raises `BadRequest`."""
    tail = message.rpartition("_")[2]
    if not (tail.isascii() and tail.isdigit() and len(tail) <= _NUMBER_DIGITS):
        raise BadRequest(ErrorCode.UNKNOWN_WEBHOOK, f"{message[:60]!r} is no delivery")
    return int(tail)


def create(
    tx: Tx, key: str, url: str | None, names: Sequence[str] | None, webhook_id: str, now_ms: int
) -> WebhookRow:
    """A webhook of a key; without a URL its messages wait to be fetched.

    Raises:
        BadRequest: the URL, an event, or one more is not allowed.
    """
    if url is not None:
        rules.target(url)
    events = rules.events_of(names)
    if len(webhooks.of_key(tx, key)) >= rules.MAX_WEBHOOKS:
        detail = f"a key has at most {rules.MAX_WEBHOOKS} webhooks; remove one first"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail)
    row = WebhookRow(
        webhook_id=webhook_id,
        key=key,
        url=url or "",
        events=f",{','.join(events)},",
        created_at_ms=now_ms,
        asked_at_ms=None if url else now_ms,
    )
    webhooks.add(tx, row)
    return row


def own(tx: Tx, key: str, webhook_id: str) -> WebhookRow:
    """A webhook of this key. Raises `BadRequest` for any other."""
    row = webhooks.find(tx, webhook_id)
    if row is None or row.key != key:
        raise BadRequest(ErrorCode.UNKNOWN_WEBHOOK)
    return row


def own_delivery(tx: Tx, key: str, webhook_id: str, message: str) -> DeliveryRow:
    """A message of a webhook of this key. Raises `BadRequest` for any other."""
    own(tx, key, webhook_id)
    number = number_of(message)
    row = webhooks.delivery(tx, webhook_id, number)
    if row is None or message != message_id(webhook_id, number):
        raise BadRequest(ErrorCode.UNKNOWN_WEBHOOK, "the webhook has no such delivery")
    return row


def take(tx: Tx, webhook_id: str, now_ms: int) -> Parcel | None:
    """Claims the next message that is due for a webhook; None when there is none."""
    hook = webhooks.find(tx, webhook_id)
    row = webhooks.next_due(tx, webhook_id, now_ms) if hook and hook.disabled_at_ms is None else None
    if hook is None or row is None or row.number is None:
        return None
    # The bytes are fixed here, so that every sending says the same.
    first = {} if row.body else {"body": _body(tx, row, now_ms), "created_at_ms": now_ms}
    if not webhooks.claim(tx, row, until_ms=now_ms + CLAIM_MS, **first):
        return None
    return Parcel(
        number=row.number,
        webhook_id=webhook_id,
        url=hook.url,
        body=row.body.encode(),
        attempts=row.attempts,
    )


def fetch(tx: Tx, key: str, webhook_id: str, taken: Sequence[str], now_ms: int) -> list[Parcel]:
    """Notes which messages somebody has fetched and taken, and claims the next ones.

    Raises:
        BadRequest: not a webhook of this key that is fetched from.
    """
    hook = own(tx, key, webhook_id)
    if hook.url:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "this webhook's messages are sent to its address")
    for message in taken:
        row = own_delivery(tx, key, webhook_id, message)
        values = {"state": DeliveryState.TAKEN.value, "ended_at_ms": now_ms}
        webhooks.ended(tx, row.number or 0, row.attempts, **values)
    webhooks.asked(tx, webhook_id, now_ms)
    found: list[Parcel] = []
    while len(found) < MOST_FETCHED and (parcel := take(tx, webhook_id, now_ms)) is not None:
        found.append(parcel)
    return found


def prune(tx: Tx, now_ms: int) -> None:
    """Forgets messages that ended a week ago, and webhooks that nobody fetches from any more."""
    webhooks.prune(tx, now_ms - KEEP_MS)
    for webhook_id in webhooks.forgotten(tx, now_ms - FETCH_MS):
        webhooks.remove(tx, webhook_id)


def note(tx: Tx, parcel: Parcel, answer: Answer, now_ms: int) -> bool:
    """Keeps what came of a sending; True when the webhook is disabled by it."""
    values: dict[str, Any] = {"answered": answer.status, "problem": answer.problem}
    if answer.taken:
        values |= {"state": DeliveryState.TAKEN.value, "ended_at_ms": now_ms}
        webhooks.failing(tx, parcel.webhook_id, None)
        webhooks.ended(tx, parcel.number, parcel.attempts, **values)
        return False
    again_ms = rules.retry_at_ms(parcel.attempts, now_ms)
    if again_ms is None:
        values |= {"state": DeliveryState.FAILED.value, "ended_at_ms": now_ms}
    else:
        values["next_at_ms"] = again_ms
    webhooks.ended(tx, parcel.number, parcel.attempts, **values)
    hook = webhooks.find(tx, parcel.webhook_id)
    if hook is None:
        return False
    if hook.failing_since_ms is None:
        webhooks.failing(tx, hook.webhook_id, now_ms)
    return _disabled(tx, hook, answer, now_ms, last=again_ms is None)


def _disabled(tx: Tx, hook: WebhookRow, answer: Answer, now_ms: int, *, last: bool) -> bool:
    """Disables a webhook whose receiver is gone, or took nothing for as long as one message was tried."""
    said = f"it answered {answer.status}" if answer.status else (answer.problem or "it did not answer")
    if answer.status == rules.GONE:
        webhooks.disable(tx, hook.webhook_id, "the receiver says that it is gone (410)", now_ms)
        return True
    since = hook.failing_since_ms
    if last and since is not None and now_ms - since >= sum(rules.RETRY_MS):
        hours = (now_ms - since) // 3_600_000
        webhooks.disable(tx, hook.webhook_id, f"nothing was taken for {hours} hours; at last {said}", now_ms)
        return True
    return False


def _body(tx: Tx, row: DeliveryRow, now_ms: int) -> str:
    event = Event(row.event)
    if event is Event.BUDGET_WARNING:
        data, happened = _session(tx, row), now_ms
    else:
        job = jobs.find(tx, row.subject)
        data = _job(tx, row, job) if job else {"job_id": row.subject}
        happened = getattr(job, _OWN_TIME.get(event, ""), None) or now_ms
    iso = datetime.fromtimestamp(happened / 1000, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"type": row.event, "timestamp": iso, "data": data}, ensure_ascii=False)


def _job(tx: Tx, row: DeliveryRow, job: JobRow) -> dict[str, Any]:
    """What a message tells of a job: where it stands, never what was asked or answered."""
    data: dict[str, Any] = {
        "job_id": job.job_id,
        "key": job.key,
        "task": job.task,
        "model": job.model_name,
        "trace_id": job.trace_id,
        "charged": False,
    }
    if row.event == Event.JOB_ORDERED:
        return data
    data["end_reason"] = row.reason
    receipt = receipts.find(tx, job.order_hash) if job.order_hash else None
    if row.event != Event.JOB_FAILED and receipt is not None:
        paid = 0 if row.event == Event.JOB_REFUNDED else receipt.amount_atoms
        data |= {"receipt_id": receipt.receipt_id, "cost_atoms": str(paid), "charged": paid > 0}
    if row.event == Event.JOB_SETTLED:
        data["settled_tx"] = row.tx_hash
    return data


def _session(tx: Tx, row: DeliveryRow) -> dict[str, Any]:
    session = sessions.find(tx, row.subject)
    data: dict[str, Any] = {"session_id": row.subject, "deposited_atoms": row.reason}
    if session is None:
        return data
    return data | {
        "key": session.key,
        "node_id": session.node_id,
        "owed_atoms": str(session.owed_atoms),
        "left_atoms": str(sessions.left_atoms(session)),
    }

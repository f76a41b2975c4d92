"""Webhooks of keys, and the messages for them: an outbox written with what it tells of."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Insert,
    Select,
    SQLColumnExpression,
    String,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlmodel import Session, col
from sqlmodel import select as select_rows

from marketplace.protocol.webhooks import Event
from marketplace.store.events import batches
from marketplace.store.plain import run
from marketplace.store.tables import DeliveryRow, JobRow, SessionRow, WebhookRow

_BLIND: Final = {"synchronize_session": False}
_SPARE_PART: Final = 5  # a warning comes when a fifth is left
_TOLD: Final = [
    *("webhook_id", "event", "subject", "reason", "tx_hash"),
    *("state", "body", "attempts", "next_at_ms", "created_at_ms"),
]


class DeliveryState(StrEnum):
    """Where a message stands: to be sent, taken by its receiver, or given up."""

    WAITING = "waiting"
    TAKEN = "taken"
    FAILED = "failed"


def tell(tx: Session, event: Event, job_id: str) -> None:
    """In the transaction that moved a job: a message for each webhook of its key that wants it.

    The same happening is told once, however often it is written; nothing is done where nobody listens.
    """
    tx.connection().execute(_job_told(event), {"job": job_id})


def tell_orders(tx: Session, event: Event, order_hashes: Sequence[str]) -> None:
    """The same for the jobs that these orders answered."""
    for part in batches(order_hashes):
        tx.connection().execute(_orders_told(event), {"orders": part})


def warn(tx: Session, session_id: str) -> None:
    """A message where the receipts of a session come near its deposit, once for each deposit."""
    tx.connection().execute(_warned(), {"session": session_id})


def add(tx: Session, row: WebhookRow) -> None:
    """A fresh webhook."""
    tx.add(row)
    tx.flush()


def find(tx: Session, webhook_id: str) -> WebhookRow | None:
    """A webhook by its id."""
    return tx.get(WebhookRow, webhook_id)


def of_key(tx: Session, key: str) -> list[WebhookRow]:
    """A key's webhooks, oldest first."""
    rows = select_rows(WebhookRow).where(WebhookRow.key == key)
    return list(tx.exec(rows.order_by(col(WebhookRow.created_at_ms), col(WebhookRow.webhook_id))))


def remove(tx: Session, webhook_id: str) -> None:
    """Forgets a webhook and its messages, sent or not."""
    tx.execute(delete(DeliveryRow).where(col(DeliveryRow.webhook_id) == webhook_id))
    tx.execute(delete(WebhookRow).where(col(WebhookRow.webhook_id) == webhook_id))


def disable(tx: Session, webhook_id: str, reason: str, now_ms: int) -> None:
    """Sends nothing more there until its owner says so."""
    _set(tx, webhook_id, disabled_at_ms=now_ms, disabled_reason=reason)


def enable(tx: Session, webhook_id: str) -> None:
    """Sends there again; what waited goes out."""
    _set(tx, webhook_id, disabled_at_ms=None, disabled_reason=None, failing_since_ms=None)


def failing(tx: Session, webhook_id: str, since_ms: int | None) -> None:
    """Since when a webhook has taken nothing; None when it took something."""
    _set(tx, webhook_id, failing_since_ms=since_ms)


def asked(tx: Session, webhook_id: str, now_ms: int) -> None:
    """Somebody fetched a webhook's messages just now."""
    _set(tx, webhook_id, asked_at_ms=now_ms)


def forgotten(tx: Session, before_ms: int) -> list[str]:
    """Webhooks whose messages nobody has fetched since then."""
    return list(tx.exec(select_rows(WebhookRow.webhook_id).where(col(WebhookRow.asked_at_ms) < before_ms)))


def waiting_hooks(tx: Session, now_ms: int, limit: int) -> list[str]:
    """Webhooks that something is due for, the longest waiting first."""
    return list(run(tx, _waiting_hooks(), {"now": now_ms, "most": limit}).scalars())


def next_due(tx: Session, webhook_id: str, now_ms: int) -> DeliveryRow | None:
    """The oldest message that is due for a webhook."""
    rows = select_rows(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id, *_due(now_ms))
    return tx.exec(rows.order_by(col(DeliveryRow.number)).limit(1)).first()


def claim(tx: Session, row: DeliveryRow, *, until_ms: int, **values: Any) -> bool:
    """Takes a message to be sent, until then at the latest; False when somebody else did."""
    return _guarded(tx, row, attempts=row.attempts + 1, next_at_ms=until_ms, **values)


def ended(tx: Session, number: int, attempts: int, /, **values: Any) -> bool:
    """Notes what came of one sending; False when the message moved on meanwhile."""
    query = (
        update(DeliveryRow)
        .where(
            col(DeliveryRow.number) == number,
            col(DeliveryRow.attempts) == attempts,
            col(DeliveryRow.state) == DeliveryState.WAITING.value,
        )
        .values(**values)
    )
    return tx.exec(query, execution_options=_BLIND).rowcount == 1


def deliveries(tx: Session, webhook_id: str, *, limit: int, before: int | None) -> list[DeliveryRow]:
    """A webhook's messages, newest first, from the one older than `before`."""
    rows = select_rows(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id)
    if before is not None:
        rows = rows.where(col(DeliveryRow.number) < before)
    return list(tx.exec(rows.order_by(col(DeliveryRow.number).desc()).limit(limit)))


def delivery(tx: Session, webhook_id: str, number: int) -> DeliveryRow | None:
    """One message of a webhook."""
    rows = select_rows(DeliveryRow).where(DeliveryRow.webhook_id == webhook_id, DeliveryRow.number == number)
    return tx.exec(rows).first()


def again(tx: Session, number: int) -> None:
    """Sends a message again, from the first pause on; its id and body stay."""
    waits = {"state": DeliveryState.WAITING.value, "attempts": 0, "next_at_ms": 0, "ended_at_ms": None}
    query = update(DeliveryRow).where(col(DeliveryRow.number) == number).values(**waits)
    tx.exec(query, execution_options=_BLIND)


def prune(tx: Session, before_ms: int) -> int:
    """Forgets messages that ended before then; gives how many."""
    old = col(DeliveryRow.ended_at_ms) < before_ms
    return tx.exec(delete(DeliveryRow).where(old), execution_options=_BLIND).rowcount


# Built once: these run with every job or all the time, mostly to find that nobody listens.
@cache
def _waiting_hooks() -> Select[str, int | None]:
    return (
        select(col(DeliveryRow.webhook_id), func.min(col(DeliveryRow.number)))
        .join(WebhookRow, col(WebhookRow.webhook_id) == col(DeliveryRow.webhook_id))
        .where(*_due(bindparam("now")), col(WebhookRow.disabled_at_ms).is_(None), col(WebhookRow.url) != "")
        .group_by(col(DeliveryRow.webhook_id))
        .order_by(func.min(col(DeliveryRow.number)))
        .limit(bindparam("most"))
    )


@cache
def _job_told(event: Event) -> Insert:
    return _told_of_jobs(event, col(JobRow.job_id) == bindparam("job"))


@cache
def _orders_told(event: Event) -> Insert:
    return _told_of_jobs(event, col(JobRow.order_hash).in_(bindparam("orders", expanding=True)))


@cache
def _warned() -> Insert:
    deposit = cast(col(SessionRow.deposited_atoms), String)
    # Without a product: it could be larger than a column.
    near_atoms = col(SessionRow.deposited_atoms) - col(SessionRow.deposited_atoms) // _SPARE_PART
    spent = col(SessionRow.owed_atoms) >= near_atoms
    rows = _messages(Event.BUDGET_WARNING, col(SessionRow.session_id), deposit, literal(""))
    near = rows.join(SessionRow, col(SessionRow.key) == col(WebhookRow.key)).where(
        col(SessionRow.session_id) == bindparam("session"), col(SessionRow.deposited_atoms) > 0, spent
    )
    return insert(DeliveryRow).from_select(_TOLD, near)


def _told_of_jobs(event: Event, which: ColumnElement[bool]) -> Insert:
    # A payment that is mined again in another transaction is told again; any other end comes once.
    paid_by = func.coalesce(col(JobRow.settled_tx), "") if event is Event.JOB_SETTLED else literal("")
    rows = _messages(event, col(JobRow.job_id), func.coalesce(col(JobRow.end_reason), ""), paid_by)
    return insert(DeliveryRow).from_select(
        _TOLD, rows.join(JobRow, col(JobRow.key) == col(WebhookRow.key)).where(which)
    )


def _messages(
    event: Event,
    subject: SQLColumnExpression[str],
    reason: SQLColumnExpression[str],
    tx_hash: SQLColumnExpression[str],
) -> Select[*tuple[Any, ...]]:
    wanted = col(WebhookRow.events).contains(f",{event.value},")
    known = exists().where(
        col(DeliveryRow.webhook_id) == col(WebhookRow.webhook_id),
        col(DeliveryRow.event) == event.value,
        col(DeliveryRow.subject) == subject,
        col(DeliveryRow.tx_hash) == tx_hash,
        # A session that was topped up can come near its deposit again.
        col(DeliveryRow.reason) == reason if event is Event.BUDGET_WARNING else true(),
    )
    fixed = (literal(DeliveryState.WAITING.value), literal(""), literal(0), literal(0), literal(0))
    told = (col(WebhookRow.webhook_id), literal(event.value), subject, reason, tx_hash, *fixed)
    return select(*told).where(col(WebhookRow.disabled_at_ms).is_(None), wanted, ~known)


def _due(now_ms: int | BindParameter[int]) -> tuple[ColumnElement[bool], ...]:
    return col(DeliveryRow.state) == DeliveryState.WAITING.value, col(DeliveryRow.next_at_ms) <= now_ms


def _guarded(tx: Session, row: DeliveryRow, **values: Any) -> bool:
    done = ended(tx, row.number or 0, row.attempts, **values)
    if done:
        tx.refresh(row)
    return done


def _set(tx: Session, webhook_id: str, **values: Any) -> None:
    query = update(WebhookRow).where(col(WebhookRow.webhook_id) == webhook_id).values(**values)
    tx.exec(query, execution_options=_BLIND)

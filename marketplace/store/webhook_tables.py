"""Tables of webhooks and what is sent to them; units as in `tables`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index
from sqlmodel import Field, SQLModel


class WebhookRow(SQLModel, table=True):
    """Where a key wants to be told of its jobs. `events` is `,job.ordered,job.settled,`, ready for LIKE.

    Without a `url` its messages wait to be fetched; `asked_at_ms` is when that last happened.
    Its secret follows from its id and is not stored. `failing_since_ms` is the first failure since something
    was taken; `disabled_reason` is for its owner.
    """

    __tablename__ = "webhook"
    webhook_id: str = Field(primary_key=True)
    key: str = Field(index=True)
    url: str
    events: str
    created_at_ms: int = Field(sa_type=BigInteger)
    asked_at_ms: int | None = Field(default=None, sa_type=BigInteger)
    failing_since_ms: int | None = Field(default=None, sa_type=BigInteger)
    disabled_at_ms: int | None = Field(default=None, sa_type=BigInteger)
    disabled_reason: str | None = None


class DeliveryRow(SQLModel, table=True):
    """A message for one webhook, written with what it tells of. `body` is fixed at the first sending.

    `subject` is a job or session; `reason` and `tx_hash` are how it stood when it happened. Numbers are never
    given twice, because receivers tell messages apart by them.
    """

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        Index("delivery_due", "state", "next_at_ms"),
        Index("delivery_subject", "webhook_id", "subject"),
        {"sqlite_autoincrement": True},
    )
    number: int | None = Field(default=None, primary_key=True)
    webhook_id: str = Field(index=True)
    event: str
    subject: str
    reason: str = ""
    tx_hash: str = ""
    body: str = ""
    state: str = "waiting"
    attempts: int = 0
    next_at_ms: int = Field(default=0, sa_type=BigInteger)
    created_at_ms: int = Field(default=0, sa_type=BigInteger)
    ended_at_ms: int | None = Field(default=None, sa_type=BigInteger)
    answered: int | None = None
    problem: str | None = None

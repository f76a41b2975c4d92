"""Tables of the market. Amounts are atoms in signed 64-bit columns; larger ones are refused at the edge.

Columns that end `_ms` are Unix milliseconds, `_at` Unix seconds. Rows that mirror the chain can be folded
again from `chain_event` at any time; rows of work carry a `version` for guarded updates.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, LargeBinary, UniqueConstraint, text
from sqlmodel import Field, Session, SQLModel

from marketplace.store.batch_tables import BatchLineRow as BatchLineRow
from marketplace.store.batch_tables import BatchRow as BatchRow
from marketplace.store.batch_tables import FileLineRow as FileLineRow
from marketplace.store.batch_tables import FileRow as FileRow
from marketplace.store.webhook_tables import DeliveryRow as DeliveryRow
from marketplace.store.webhook_tables import WebhookRow as WebhookRow

# What a `with store.transaction()` gives: steps above take it as an argument and never import SQLModel.
Tx = Session


def _big(*, index: bool = False, nullable: bool = False) -> Any:
    return Column(BigInteger, index=index, nullable=nullable)


def _blob(*, nullable: bool = False) -> Any:
    return Column(LargeBinary, nullable=nullable)


def _where(condition: str) -> dict[str, Any]:
    """Options of an index over some rows only."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class AccountRow(SQLModel, table=True):
    """A buyer's free balance in the escrow, folded from chain events."""

    __tablename__ = "account"
    buyer: str = Field(primary_key=True)
    balance_atoms: int = Field(sa_column=_big())


class NodeRow(SQLModel, table=True):
    """A node: chain facts, and when this market last heard it."""

    __tablename__ = "node"
    node_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    owner: str
    epoch: int
    signer: str
    encryption_key: str
    settler: str
    uri: str
    stake_atoms: int = Field(sa_column=_big())
    earnings_atoms: int = Field(sa_column=_big())
    last_seen_ms: int = Field(default=0, sa_column=_big())
    free_slots: int = 0
    queue_depth: int = 0
    connected: bool = False
    draining: bool = False


class NodeModelRow(SQLModel, table=True):
    """A model a node says it serves."""

    __tablename__ = "node_model"
    node_id: int = Field(primary_key=True)
    model_id: str = Field(primary_key=True)
    name: str = Field(index=True)
    task: str
    context_tokens: int
    loaded: bool
    canary_bps: int = 0


class ModelAliasRow(SQLModel, table=True):
    """What an alias of the register of models means, folded from chain events; a `fixed` one never moves."""

    __tablename__ = "model_alias"
    alias: str = Field(primary_key=True)
    model_id: str = Field(index=True)
    publisher: str
    fixed: bool
    block_number: int = Field(sa_column=_big())


class OfferRow(SQLModel, table=True):
    """A signed offer; `current` while it is in its node's newest list."""

    __tablename__ = "offer"
    offer_hash: str = Field(primary_key=True)
    node_id: int = Field(index=True)
    model_id: str = Field(index=True)
    message: bytes = Field(sa_column=_blob())
    signature: bytes = Field(sa_column=_blob())
    valid_until: int = Field(sa_column=_big())
    current: bool
    received_at_ms: int = Field(sa_column=_big())


class KeyRow(SQLModel, table=True):
    """A delegate key this gateway holds for a bearer secret; the secret itself is not kept.

    `models` are patterns of names it may buy, one a line, none: any. `budget_atoms` is the most all its
    sessions may spend through this gateway.
    """

    __tablename__ = "delegate_key"
    address: str = Field(primary_key=True)
    secret_hash: str = Field(unique=True)
    sealed_key: bytes = Field(sa_column=_blob())
    label: str
    created_at_ms: int = Field(sa_column=_big())
    models: str = ""
    budget_atoms: int | None = Field(default=None, sa_column=_big(nullable=True))
    expires_at: int | None = Field(default=None, sa_column=_big(nullable=True))
    revoked_at_ms: int | None = Field(default=None, sa_column=_big(nullable=True))


class GrantRow(SQLModel, table=True):
    """Models a buyer lets a key of its own buy through this gateway: patterns of names, one a line."""

    __tablename__ = "key_grant"
    buyer: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    models: str


class SessionRow(SQLModel, table=True):
    """A session: chain facts, then what this market has promised out of it."""

    __tablename__ = "session"
    session_id: str = Field(primary_key=True)
    buyer: str = Field(index=True)
    key: str = Field(index=True)
    node_id: int = Field(index=True)
    key_epoch: int
    deposited_atoms: int = Field(sa_column=_big())
    paid_atoms: int = Field(sa_column=_big())
    claimed_atoms: int = Field(default=0, sa_column=_big())
    through_seq: int = Field(sa_column=_big())
    expires_at: int = Field(sa_column=_big())
    closed: bool = False
    opened_block: int = Field(sa_column=_big())
    next_seq: int = Field(default=1, sa_column=_big())
    reserved_atoms: int = Field(default=0, sa_column=_big())
    owed_atoms: int = Field(default=0, sa_column=_big())


class SessionTermsRow(SQLModel, table=True):
    """The signed `Open` of a session asked for here; its rest can be returned with it after expiry."""

    __tablename__ = "session_terms"
    session_id: str = Field(primary_key=True)
    buyer: str = Field(index=True)
    key: str = Field(index=True)
    message: bytes = Field(sa_column=_blob())
    signature: bytes = Field(sa_column=_blob())
    expires_at: int = Field(index=True, sa_type=BigInteger)
    asked_at_ms: int = Field(sa_column=_big())


class PaymentRow(SQLModel, table=True):
    """A quote that somebody without an account paid, or is about to; `refunds` counts what was sent back.

    `message` and `signature` are the payer's `TransferWithAuthorization`; `identifier` is a digest of payer
    and the payer's own name for the call, `fingerprint` of the call. `due_at` is when the session's rest can
    be sent back at the latest; `done` when nothing of it is left to do.
    """

    __tablename__ = "payment"
    receiver: str = Field(primary_key=True)
    session_id: str = Field(unique=True)
    key: str = Field(index=True)
    model_id: str
    quote: bytes = Field(sa_column=_blob())
    payer: str = Field(index=True)
    message: bytes = Field(sa_column=_blob())
    signature: bytes = Field(sa_column=_blob())
    identifier: str | None = Field(default=None, unique=True)
    fingerprint: str
    asked_at_ms: int = Field(sa_column=_big())
    due_at: int = Field(sa_column=_big())
    refunds: int = 0
    done: bool = Field(default=False, index=True)


class JobRow(SQLModel, table=True):
    """One call of a buyer, through however many orders it takes.

    `phase` is a `JobPhase`, `end_reason` an `EndReason`; `held` means this gateway holds the job's key and
    can sign further orders and vouchers for it. `idempotency` is a digest of what the caller calls it by,
    `fingerprint` of the call as it was asked; `retries` is the highest count of a client's own retries that
    this job has answered. `echo` is JSON of what the answer says back and the payload does not hold. Input
    and output are kept until `keep_until_ms`.
    """

    __tablename__ = "job"
    __table_args__ = (Index("job_named", "created_at_ms", **_where("idempotency IS NOT NULL")),)
    job_id: str = Field(primary_key=True)
    key: str = Field(index=True)
    held: bool
    streamed: bool = False
    idempotency: str | None = Field(default=None, unique=True)
    fingerprint: str = Field(default="", index=True)
    echo: str = ""
    retries: int = 0
    task: str
    model_id: str
    model_name: str
    payload: bytes = Field(sa_column=_blob())
    max_cost_atoms: int | None = Field(default=None, sa_column=_big(nullable=True))
    trace_id: str = Field(index=True)
    phase: str = Field(index=True)
    end_reason: str | None = None
    detail: str = ""
    order_hash: str | None = None
    attempts: int = 0
    created_at_ms: int = Field(sa_column=_big())
    deadline_ms: int = Field(sa_column=_big())
    ended_at_ms: int | None = Field(default=None, sa_column=_big(nullable=True))
    cancel_asked_ms: int | None = Field(default=None, sa_column=_big(nullable=True))
    keep_until_ms: int | None = Field(default=None, sa_column=_big(index=True, nullable=True))
    deleted_at_ms: int | None = Field(default=None, sa_column=_big(nullable=True))
    settled_tx: str | None = None
    version: int = 0


class OrderRow(SQLModel, table=True):
    """One signed order of a job. `state` is an `OrderState`; `signer` must have signed its receipt."""

    __tablename__ = "order"
    __table_args__ = (UniqueConstraint("session_id", "seq"), Index("order_open", "state", "lease_until_ms"))
    order_hash: str = Field(primary_key=True)
    job_id: str = Field(index=True)
    attempt: int
    session_id: str
    seq: int = Field(sa_column=_big())
    node_id: int = Field(index=True)
    signer: str
    offer_hash: str
    salt: bytes = Field(sa_column=_blob())
    message: bytes = Field(sa_column=_blob())
    signature: bytes = Field(sa_column=_blob())
    max_amount_atoms: int = Field(sa_column=_big())
    state: str = "open"
    problem: str | None = None
    issued_at_ms: int = Field(sa_column=_big())
    lease_until_ms: int = Field(sa_column=_big())
    accepted: bool = False


class ReceiptRow(SQLModel, table=True):
    """A node's signed receipt, its annex, and whether a voucher has to cover it."""

    __tablename__ = "receipt"
    order_hash: str = Field(primary_key=True)
    receipt_id: str = Field(unique=True)
    job_id: str = Field(index=True)
    session_id: str = Field(index=True)
    seq: int = Field(sa_column=_big())
    message: bytes = Field(sa_column=_blob())
    signature: bytes = Field(sa_column=_blob())
    annex: bytes = Field(sa_column=_blob())
    amount_atoms: int = Field(sa_column=_big())
    status: int
    superseded: bool = False
    received_at_ms: int = Field(sa_column=_big())


class FaultRow(SQLModel, table=True):
    """A signed receipt that breaks the rules, kept as evidence; it is never paid."""

    __tablename__ = "fault"
    receipt_digest: str = Field(primary_key=True)
    order_hash: str = Field(index=True)
    node_id: int = Field(index=True)
    message: bytes = Field(sa_column=_blob())
    signature: bytes = Field(sa_column=_blob())
    annex: bytes = Field(sa_column=_blob())
    problem: str
    received_at_ms: int = Field(sa_column=_big())


class ChunkRow(SQLModel, table=True):
    """One response chunk of a receipted order, exactly as the node hashed it."""

    __tablename__ = "chunk"
    order_hash: str = Field(primary_key=True)
    position: int = Field(primary_key=True)
    body: bytes = Field(sa_column=_blob())


class VoucherRow(SQLModel, table=True):
    """A session's newest voucher; `taken` once its node has it on disk.

    `leaves` and `peaks` are the `Frontier` of the receipts it covers, so that the next root is cheap.
    """

    __tablename__ = "voucher"
    session_id: str = Field(primary_key=True)
    node_id: int = Field(index=True)
    through_seq: int = Field(sa_column=_big())
    amount_atoms: int = Field(sa_column=_big())
    message: bytes = Field(sa_column=_blob())
    signature: bytes = Field(sa_column=_blob())
    signed_at_ms: int = Field(sa_column=_big())
    leaves: int = 0
    peaks: bytes = Field(default=b"", sa_column=_blob())
    taken: bool = False
    problem: str | None = None


class OutboxRow(SQLModel, table=True):
    """A transaction the keeper shall send. `intent` is unique: asking twice is asking once."""

    __tablename__ = "outbox"
    outbox_id: int | None = Field(default=None, primary_key=True)
    intent: str = Field(unique=True)
    contract: str
    data: bytes = Field(sa_column=_blob())
    what: str
    state: str = Field(default="waiting", index=True)
    problem: str | None = None
    trace_id: str = ""
    created_at_ms: int = Field(sa_column=_big())


class TransactionRow(SQLModel, table=True):
    """A signed transaction of this gateway."""

    __tablename__ = "transaction"
    __table_args__ = (UniqueConstraint("sender", "nonce"),)
    intent: str = Field(primary_key=True)
    sender: str
    nonce: int = Field(sa_column=_big())
    raw: bytes = Field(sa_column=_blob())
    tx_hash: str = Field(index=True)
    state: str
    created_at_ms: int = Field(sa_column=_big())
    block_number: int | None = Field(default=None, sa_column=_big(nullable=True))
    block_hash: str | None = None
    trace_ids: str = ""


class BlockRow(SQLModel, table=True):
    """A block the follower has folded; the newest is its cursor."""

    __tablename__ = "block"
    number: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    hash: str
    timestamp: int = Field(sa_column=_big())


class ChainEventRow(SQLModel, table=True):
    """One decoded event of our contracts, exactly once per place in the chain."""

    __tablename__ = "chain_event"
    block_number: int = Field(primary_key=True)
    log_index: int = Field(primary_key=True)
    part: int = Field(primary_key=True, default=0)
    block_hash: str
    tx_hash: str = Field(index=True)
    contract: str
    name: str = Field(index=True)
    subject: str = Field(index=True)
    args: str


class DeletionRow(SQLModel, table=True):
    """The signed record of what was deleted of a job; the bytes that were signed are kept."""

    __tablename__ = "deletion"
    job_id: str = Field(primary_key=True)
    record: bytes = Field(sa_column=_blob())
    signature: bytes = Field(sa_column=_blob())
    signer: str

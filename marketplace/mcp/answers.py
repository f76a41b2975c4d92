"""What the tools answer; each class is its tool's output schema. Amounts are decimal text, exact."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from marketplace.client.quotes import Quote
from marketplace.client.verify import Check, passed
from marketplace.mcp.limits import Limits
from marketplace.mcp.shop import Bought, Currency, Purse


class Model(BaseModel):
    """One model on offer, with its cheapest prices."""

    model: str = Field(description="Name to ask by.")
    model_id: str = Field(description="The files it stands for; ask by it to get these and no others.")
    tasks: list[str]
    context_tokens: int | None
    nodes: int = Field(description="How many nodes offer it now.")
    price_per_job: str | None
    price_in_per_million: str | None
    price_out_per_million: str | None
    aliases: list[str]


class Models(BaseModel):
    """Models that fit."""

    models: list[Model]
    currency: str


class Offer(BaseModel):
    """One node's offer for one request."""

    offer: str | None = Field(description="Hand this to `run`; none where it cannot be taken.")
    node_id: int
    ceiling: str = Field(description="Most it can cost; what is not used is never charged.")
    why: str = Field(description="Why it ranks here, or why it cannot be taken now.")
    expires_in_seconds: int


class Offers(BaseModel):
    """Offers for one request, best first. Nothing was charged."""

    model: str
    currency: str
    units_in_ceiling: int
    units_out_ceiling: int
    offers: list[Offer]


class Ran(BaseModel):
    """A job that is delivered and paid."""

    text: str | None = Field(description="What was generated.")
    finish: str | None = Field(description="stop, length, deadline or cancelled.")
    vectors: list[list[float]] | None = Field(description="One an input, for embeddings.")
    answer: dict[str, Any] | None = Field(description="The answer of any other task.")
    paid: str
    refunded: str = Field(description="What was set aside and not used.")
    currency: str
    receipt: str = Field(description="For `verify_receipt`.")
    verified: bool = Field(description="Whether no check of the receipt failed.")
    failed_checks: list[str]
    job: str
    node_id: int
    model: str
    model_id: str
    units_in: int
    units_out: int
    energy_millijoules: int


class Job(BaseModel):
    """Where a job stands."""

    job: str
    phase: str
    end_reason: str | None
    sentence: str
    charged: bool
    paid: str
    currency: str
    model: str | None
    node_id: int | None
    receipt: str | None
    result: dict[str, Any] | None
    timeline: list[dict[str, Any]]


class ReceiptCheck(BaseModel):
    """One thing looked at; `ok` is null where it could not be looked at here."""

    name: str
    ok: bool | None
    detail: str


class Verified(BaseModel):
    """The checks of a receipt, in the order of the job's life."""

    verified: bool = Field(description="Whether no check failed.")
    checks: list[ReceiptCheck]


class Budget(BaseModel):
    """What can still be spent."""

    left: str = Field(description="By the user's limits and by what the key has, whichever is less.")
    currency: str
    per_job: str | None = Field(description="Above this the user is asked; null: never.")
    per_session: str | None = Field(description="Most one session with a node may hold; null: no limit.")
    spent: str = Field(description="Since this server started.")
    in_sessions: str = Field(description="Of what the key has, this is set aside for nodes already.")
    expires_in_seconds: int | None = Field(description="Until the key is over; null: never.")
    models: str | None = Field(description="Pattern of the models that may be used; null: all.")


def model_of(row: dict[str, Any]) -> Model:
    """A row of `GET /v1/models`."""
    prices = row.get("prices") or {}
    return Model(
        model=str(row["id"]),
        model_id=str(row.get("model_id") or ""),
        tasks=[str(task) for task in row.get("tasks") or [row.get("task")] if task],
        context_tokens=row.get("context_tokens"),
        nodes=int(row.get("offers") or 0),
        price_per_job=prices.get("per_job"),
        price_in_per_million=prices.get("in_per_million"),
        price_out_per_million=prices.get("out_per_million"),
        aliases=[str(alias["alias"]) for alias in row.get("aliases") or []],
    )


def offer_of(name: str | None, quote: Quote, currency: Currency, now_ms: int) -> Offer:
    """A quote under the id it is kept by."""
    return Offer(
        offer=name,
        node_id=quote.node_id,
        ceiling=currency.bare(quote.ceiling_atoms),
        why=quote.reason if quote.eligible else f"not now: {quote.why_not}",
        expires_in_seconds=max(0, quote.offer.valid_until - now_ms // 1000),
    )


def ran_of(bought: Bought, model: str, currency: Currency) -> Ran:
    """What was bought, and what became of the money."""
    return Ran(
        text=bought.text,
        finish=bought.finish,
        vectors=bought.vectors,
        answer=bought.answer,
        paid=currency.bare(bought.cost_atoms),
        refunded=currency.bare(bought.ceiling_atoms - bought.cost_atoms),
        currency=currency.symbol,
        receipt=bought.receipt_id,
        verified=passed(bought.checks),
        failed_checks=[f"{check.name}: {check.detail}" for check in bought.checks if check.ok is False],
        job=bought.job_id,
        node_id=bought.node_id,
        model=model,
        model_id=bought.model_id,
        units_in=bought.units_in,
        units_out=bought.units_out,
        energy_millijoules=bought.energy_millijoules,
    )


def job_of(row: dict[str, Any], currency: Currency) -> Job:
    """A job of `GET /v1/jobs/{id}`."""
    return Job(
        job=str(row["job_id"]),
        phase=str(row["phase"]),
        end_reason=row.get("end_reason"),
        sentence=str(row.get("sentence") or ""),
        charged=row.get("charged") is True,
        paid=currency.bare(int(row.get("cost_atoms") or 0)),
        currency=currency.symbol,
        model=row.get("model"),
        node_id=row.get("node_id"),
        receipt=row.get("receipt_id"),
        result=row.get("result"),
        timeline=list(row.get("timeline") or []),
    )


def verified_of(checks: list[Check]) -> Verified:
    """Checks of a receipt."""
    rows = [ReceiptCheck(name=check.name, ok=check.ok, detail=check.detail) for check in checks]
    return Verified(verified=passed(checks), checks=rows)


def budget_of(purse: Purse, limits: Limits, currency: Currency, now_ms: int) -> Budget:
    """What the key has, within the user's limits."""

    def shown(atoms: int | None) -> str | None:
        return None if atoms is None else currency.bare(atoms)

    own = limits.left_atoms
    left = purse.left_atoms if own is None else min(own, purse.left_atoms)
    ends = purse.expires_at
    return Budget(
        left=currency.bare(left),
        currency=currency.symbol,
        per_job=shown(limits.per_job_atoms),
        per_session=shown(purse.per_session_atoms),
        spent=currency.bare(limits.spent_atoms),
        in_sessions=currency.bare(purse.in_sessions_atoms),
        expires_in_seconds=None if ends is None else max(0, ends - now_ms // 1000),
        models=limits.models,
    )

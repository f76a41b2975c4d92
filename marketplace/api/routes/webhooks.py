"""Webhooks of the caller: where it is told what happens to its jobs, and what it was told."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from marketplace.api.auth import caller
from marketplace.api.routes.jobs import page
from marketplace.flow import Market
from marketplace.hooks import rules, step
from marketplace.hooks.post import Post
from marketplace.protocol import ids
from marketplace.protocol import webhooks as messages
from marketplace.store import webhooks
from marketplace.store.tables import DeliveryRow, Tx, WebhookRow
from marketplace.store.webhooks import DeliveryState

_MESSAGE: Final = "^msg_[a-z2-7]{1,40}_[0-9]{1,9}$"


class WebhookCall(BaseModel):
    """Body of `POST /v1/webhooks`."""

    url: str | None = Field(
        min_length=1,
        max_length=rules.MAX_URL,
        description="Public http or https address; null: messages wait to be fetched.",
    )
    events: list[str] | None = Field(default=None, max_length=32, description="Names of events; else all.")


class FetchCall(BaseModel):
    """Body of `POST /v1/webhooks/{id}/fetch`."""

    taken: list[str] = Field(
        default=[], max_length=100, description="Messages fetched before that have arrived where they should."
    )


def routes(market: Market) -> APIRouter:
    """Routes about webhooks."""
    router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
    _hooks(router, market)
    _deliveries(router, market)
    _fetching(router, market)
    return router


def _hooks(router: APIRouter, market: Market) -> None:
    @router.post("", status_code=201)
    async def add(call: WebhookCall, request: Request) -> dict[str, Any]:
        """Tells the caller's jobs to an address; the secret is in this answer and in no other."""
        key = await caller(market, request)
        terms = market.terms
        if call.url is not None:
            seconds = terms.webhook_timeout_ms / 1000
            await Post(allow_loopback=terms.webhook_allow_loopback, seconds=seconds).check(call.url)
        webhook_id, now = ids.webhook_id(market.random(15)), market.clock()
        row = await market.write(lambda tx: step.create(tx, key, call.url, call.events, webhook_id, now))
        return _hook(row) | {"secret": messages.secret_text(step.secret(market.vault.derive, webhook_id))}

    @router.get("")
    async def listed(request: Request) -> dict[str, Any]:
        """Lists the caller's webhooks, oldest first."""
        key = await caller(market, request)
        rows = await market.read(lambda tx: webhooks.of_key(tx, key))
        return page([_hook(row) for row in rows], "id", has_more=False)

    @router.delete("/{webhook_id}")
    async def remove(webhook_id: str, request: Request) -> dict[str, Any]:
        """Removes a webhook with all that waits for it."""
        key = await caller(market, request)

        def work(tx: Tx) -> None:
            webhooks.remove(tx, step.own(tx, key, webhook_id).webhook_id)

        await market.write(work)
        return {"id": webhook_id, "object": "webhook", "deleted": True}

    @router.post("/{webhook_id}/enable")
    async def enable(webhook_id: str, request: Request) -> dict[str, Any]:
        """Sends to a disabled webhook again; what waited goes out. Idempotent."""
        key = await caller(market, request)

        def work(tx: Tx) -> dict[str, Any]:
            row = step.own(tx, key, webhook_id)
            webhooks.enable(tx, webhook_id)
            tx.refresh(row)
            return _hook(row)

        return await market.write(work)


def _deliveries(router: APIRouter, market: Market) -> None:
    @router.get("/{webhook_id}/deliveries")
    async def deliveries(
        webhook_id: str,
        request: Request,
        limit: int = Query(default=20, ge=1, le=100),
        after: str | None = Query(default=None, pattern=_MESSAGE),
    ) -> dict[str, Any]:
        """Lists a webhook's messages, newest first, for a week after they ended."""
        key = await caller(market, request)

        def load(tx: Tx) -> list[DeliveryRow]:
            step.own(tx, key, webhook_id)
            before = step.number_of(after) if after else None
            return webhooks.deliveries(tx, webhook_id, limit=limit + 1, before=before)

        rows = await market.read(load)
        return page([_delivery(row) for row in rows[:limit]], "id", has_more=len(rows) > limit)

    @router.post("/{webhook_id}/deliveries/{message_id}/redeliver", status_code=202)
    async def redeliver(webhook_id: str, message_id: str, request: Request) -> dict[str, Any]:
        """Sends a message once more, with the same id and body."""
        key = await caller(market, request)

        def work(tx: Tx) -> dict[str, Any]:
            row = step.own_delivery(tx, key, webhook_id, message_id)
            webhooks.again(tx, row.number or 0)
            tx.refresh(row)
            return _delivery(row)

        return await market.write(work)


def _fetching(router: APIRouter, market: Market) -> None:
    @router.post("/{webhook_id}/fetch")
    async def fetch(webhook_id: str, call: FetchCall, request: Request) -> dict[str, Any]:
        """Gives the next messages of a webhook without an address; what is not taken comes again."""
        key, now = await caller(market, request), market.clock()
        parcels = await market.write(lambda tx: step.fetch(tx, key, webhook_id, call.taken, now))
        data = [{"id": parcel.message_id, "body": parcel.body.decode()} for parcel in parcels]
        return page(data, "id", has_more=len(data) == step.MOST_FETCHED)


def _hook(row: WebhookRow) -> dict[str, Any]:
    return {
        "id": row.webhook_id,
        "object": "webhook",
        "url": row.url or None,
        "events": [name for name in row.events.split(",") if name],
        "created_at_ms": row.created_at_ms,
        "failing_since_ms": row.failing_since_ms,
        "status": "enabled" if row.disabled_at_ms is None else "disabled",
        "disabled_at_ms": row.disabled_at_ms,
        "disabled_reason": row.disabled_reason,
    }


def _delivery(row: DeliveryRow) -> dict[str, Any]:
    waits = row.state == DeliveryState.WAITING and row.attempts > 0
    return {
        "id": step.message_id(row.webhook_id, row.number or 0),
        "object": "webhook.delivery",
        "event": row.event,
        "subject": row.subject,
        "state": row.state,
        "attempts": row.attempts,
        "next_at_ms": row.next_at_ms if waits else None,
        "answered": row.answered,
        "problem": row.problem,
        "created_at_ms": row.created_at_ms or None,
        "ended_at_ms": row.ended_at_ms,
        "body": row.body or None,
    }

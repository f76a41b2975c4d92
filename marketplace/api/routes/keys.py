"""Bearer keys: made with limits, shown with what is left, revoked for good."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from marketplace.api import messages, views
from marketplace.api.auth import bearer, secret_of, visitor
from marketplace.flow import Market
from marketplace.funding import budgets
from marketplace.funding import step as funding
from marketplace.openai import money
from marketplace.openai.requests import PLAIN
from marketplace.protocol import ids, patterns
from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.protocol.forecasts import DAY_SECONDS, HOUR_SECONDS, forecast
from marketplace.protocol.money import format_atoms
from marketplace.protocol.phases import SessionStatus
from marketplace.store import keys, receipts, sessions
from marketplace.store.tables import GrantRow, KeyRow, Tx


class KeyCall(BaseModel):
    """Body of `POST /v1/keys`."""

    label: str = Field(default="", max_length=80, pattern=PLAIN)
    models: list[str] = Field(
        default=[], max_length=patterns.MOST, description="Names it may buy, as tiny-*; none: any."
    )
    budget: str | float | None = Field(default=None, description="Most it may spend in all, in token units.")
    expires_at: int | None = Field(default=None, ge=1, lt=1 << 48, description="Unix seconds.")


class GrantCall(BaseModel):
    """Body of `PUT /v1/grants/{key}`, with the buyer's signed visit in `x-watt-visit`."""

    models: list[str] = Field(max_length=patterns.MOST, description="Names, as tiny-*; none: any.")


def routes(market: Market) -> APIRouter:
    """Routes about bearer keys."""
    router = APIRouter(tags=["money"])

    @router.post("/v1/keys", status_code=201)
    async def new_key(call: KeyCall) -> dict[str, Any]:
        """Makes a delegate key; sessions opened for its address are what its secret can spend."""
        secret, now = ids.api_key(market.random(24)), market.clock()
        decimals = market.deployment.token_decimals
        atoms = None if call.budget is None else money.to_atoms(call.budget, decimals, "budget")
        terms = budgets.Terms(models=tuple(call.models), budget_atoms=atoms, expires_at=call.expires_at)
        signer = await market.write(
            lambda tx: funding.create_key(tx, market.vault, secret, call.label, now, terms)
        )
        limits = {"models": call.models, "budget_atoms": _text(atoms), "expires_at": call.expires_at}
        return {"api_key": secret, "address": signer.address, "label": call.label} | limits

    @router.get("/v1/keys/me")
    async def own_key(request: Request) -> dict[str, Any]:
        """Shows what the bearer key may buy, and what it has left now."""
        key = await bearer(market, request)
        return await market.read(lambda tx: _key(tx, market, key.address))

    @router.delete("/v1/keys/me", status_code=204)
    async def revoke_key(request: Request) -> Response:
        """Revokes the bearer key: its next call is refused. What it has ordered goes on."""
        await market.revoke_key(secret_of(request))
        return Response(status_code=204)

    @router.put("/v1/grants/{key}")
    async def grant(key: str, call: GrantCall, request: Request) -> dict[str, Any]:
        """Says which models a key of the visiting buyer may buy here; in place of what was said before."""
        address = messages.address(key, "key")
        buyer = visitor(market, request.headers.get("x-watt-visit", ""))
        budgets.check_terms(budgets.Terms(models=tuple(call.models)), market.clock() // 1000)
        row = GrantRow(buyer=buyer, key=address, models="\n".join(call.models))
        await market.write(lambda tx: keys.put_grant(tx, row))
        return {"buyer": buyer, "key": address, "models": call.models}

    return router


def _key(tx: Tx, market: Market, address: str) -> dict[str, Any]:
    row = keys.find(tx, address)
    if row is None:
        raise Broken(ErrorCode.INTERNAL, "a key that opened is gone")
    now_ms = market.clock()
    now_at = now_ms // 1000
    shown = [views.session_view(item, now_at) for item in sessions.of_key(tx, address)]
    open_ones = [item for item in shown if item["status"] == SessionStatus.OPEN.value]
    left = sum(int(item["left_atoms"]) for item in open_ones)
    day = receipts.spent_since(tx, address, now_ms - DAY_SECONDS * 1000)
    facts = {
        "address": address,
        "label": row.label,
        "models": list(budgets.models_of(row)),
        "expires_at": row.expires_at,
        "created_at_ms": row.created_at_ms,
        "currency": market.deployment.token_symbol,
        "spent_last_day_atoms": str(day.atoms),
        "sessions_left_atoms": str(left),
        "sessions": open_ones,
    }
    money = _budget(tx, row, left, market.deployment.token_decimals)
    # Its budget ends with its time; what only sessions hold ends with the last of them.
    ends = [row.expires_at] if row.expires_at else [item["expires_at"] for item in open_ones]
    found = forecast(
        receipts.spent_since(tx, address, now_ms - HOUR_SECONDS * 1000),
        day,
        left_atoms=int(money["left_atoms"]),
        now=now_at,
        ends_at=max(ends, default=None),
    )
    return facts | money | {"forecast": found.to_json()}


def _budget(tx: Tx, row: KeyRow, sessions_left: int, decimals: int) -> dict[str, Any]:
    """What is spent, running orders at their ceilings among it, and what may still be."""
    spent = sessions.committed_atoms(tx, row.address)
    left = sessions_left if row.budget_atoms is None else min(sessions_left, row.budget_atoms - spent)
    return {
        "budget_atoms": _text(row.budget_atoms),
        "spent_atoms": str(spent),
        "left_atoms": str(max(0, left)),
        "left": format_atoms(max(0, left), decimals),
    }


def _text(atoms: int | None) -> str | None:
    return None if atoms is None else str(atoms)

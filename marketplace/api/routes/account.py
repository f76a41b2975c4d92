"""Sessions and accounts: the market's own routes about money."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from marketplace.api import messages, views
from marketplace.api.routes.jobs import page
from marketplace.flow import Market
from marketplace.funding import step as funding
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open, Receipt, TopUp
from marketplace.protocol.money import format_atoms
from marketplace.store import outbox, receipts, sessions
from marketplace.store.outbox import OutboxEntry
from marketplace.store.tables import ReceiptRow, SessionTermsRow, Tx


class OpenCall(BaseModel):
    """Body of `POST /v1/sessions`: an `Open` signed by the buyer."""

    open: dict[str, Any]
    signature: str


class TopUpCall(BaseModel):
    """Body of `POST /v1/sessions/{id}/topup`."""

    top_up: dict[str, Any]
    open: dict[str, Any]
    signature: str


def routes(market: Market) -> APIRouter:
    """Routes about money."""
    router = APIRouter(tags=["money"])

    @router.post("/v1/sessions", status_code=202)
    async def open_session(call: OpenCall) -> dict[str, Any]:
        """Asks the chain to open a session. Idempotent."""
        terms = messages.read(Open, call.open, "open")
        signature, now = messages.blob(call.signature, "signature"), market.clock()
        session_id, entry = await market.write(
            lambda tx: funding.ask_open(tx, market.deployment, terms, signature, now)
        )
        return {"session_id": session_id} | _asked(entry)

    @router.get("/v1/sessions")
    async def listed(key: str) -> dict[str, Any]:
        """Lists a key's sessions, and those asked for that are not on the chain yet."""
        owner = messages.address(key, "key")
        return await market.read(lambda tx: _sessions(tx, owner, market.clock() // 1000))

    @router.get("/v1/sessions/{session_id}")
    async def session(session_id: str) -> dict[str, Any]:
        """Shows a session."""
        return await market.read(lambda tx: _session(tx, session_id, market.clock() // 1000))

    @router.post("/v1/sessions/{session_id}/topup", status_code=202)
    async def top_up(session_id: str, call: TopUpCall) -> dict[str, Any]:
        """Asks the chain to raise a session's deposit. Idempotent."""
        wish = messages.read(TopUp, call.top_up, "top_up")
        terms = messages.read(Open, call.open, "open")
        if to_hex(wish.session_id) != session_id.lower():
            raise BadRequest(ErrorCode.UNKNOWN_SESSION, "top_up names another session", param="top_up")
        signature, now = messages.blob(call.signature, "signature"), market.clock()
        entry = await market.write(
            lambda tx: funding.ask_top_up(tx, market.deployment, wish, terms, signature, now)
        )
        return {"session_id": session_id} | _asked(entry)

    @router.get("/v1/accounts/{buyer}")
    async def account(buyer: str) -> dict[str, Any]:
        """Shows a buyer's free balance and sessions."""
        owner = messages.address(buyer, "buyer")
        return await market.read(lambda tx: _account(tx, owner, market))

    _receipts(router, market)
    return router


def _receipts(router: APIRouter, market: Market) -> None:
    @router.get("/v1/sessions/{session_id}/receipts")
    async def session_receipts(
        session_id: str,
        limit: int | None = Query(default=None, ge=1, le=1_000, description="All of them when not given."),
        after: str | None = Query(default=None, pattern="^rcpt_[0-9a-f]{32}$"),
    ) -> dict[str, Any]:
        """Lists a session's receipts in order of seq; what a voucher has to cover is not superseded."""

        def load(tx: Tx) -> list[ReceiptRow]:
            last = receipts.find_by_id(tx, after) if after else None
            seq = last.seq if last and last.session_id == session_id.lower() else 0
            return receipts.of_session(
                tx, session_id.lower(), after_seq=seq, limit=limit + 1 if limit else None
            )

        rows = await market.read(load)
        data = [_receipt_line(row, market) for row in rows[:limit]]
        return page(data, "receipt_id", has_more=len(data) < len(rows))


def _asked(entry: OutboxEntry) -> dict[str, Any]:
    return {"intent": entry.wanted.intent, "status": entry.state.value, "problem": entry.problem}


def _sessions(tx: Tx, key: str, now_at: int) -> dict[str, Any]:
    rows = sessions.of_key(tx, key)
    known = {row.session_id for row in rows}
    waiting = [
        _waiting(tx, terms) for terms in sessions.terms_of_key(tx, key) if terms.session_id not in known
    ]
    data = [views.session_view(row, now_at) for row in rows]
    return {"object": "list", "data": [*data, *waiting], "has_more": False}


def _session(tx: Tx, session_id: str, now_at: int) -> dict[str, Any]:
    session_id = to_hex(funding.session_bytes(session_id))
    row = sessions.find(tx, session_id)
    if row is not None:
        return views.session_view(row, now_at)
    terms = sessions.terms(tx, session_id)
    if terms is None:
        raise BadRequest(ErrorCode.UNKNOWN_SESSION)
    return _waiting(tx, terms)


def _waiting(tx: Tx, terms: SessionTermsRow) -> dict[str, Any]:
    entry = outbox.find(tx, f"open:{terms.session_id}")
    wish = Open.decode(terms.message)
    return {
        "session_id": terms.session_id,
        "buyer": terms.buyer,
        "key": terms.key,
        "node_id": wish.node_id,
        "deposited_atoms": "0",
        "asked_atoms": str(wish.amount_atoms),
        "expires_at": terms.expires_at,
        "status": "failed" if entry and entry.problem else "opening",
        "problem": entry.problem if entry else None,
    }


def _receipt_line(row: ReceiptRow, market: Market) -> dict[str, Any]:
    receipt = Receipt.decode(row.message)
    return {
        "receipt_id": row.receipt_id,
        "job_id": row.job_id,
        "seq": row.seq,
        "order_hash": row.order_hash,
        "digest": to_hex(receipt.digest(market.domain)),
        "amount_atoms": str(row.amount_atoms),
        "status": row.status,
        "superseded": row.superseded,
        "message": to_hex(row.message),
        "signature": to_hex(row.signature),
    }


def _account(tx: Tx, buyer: str, market: Market) -> dict[str, Any]:
    row = sessions.account(tx, buyer)
    atoms = row.balance_atoms if row else 0
    now_at = market.clock() // 1000
    return {
        "buyer": buyer,
        "balance_atoms": str(atoms),
        "balance": format_atoms(atoms, market.deployment.token_decimals),
        "currency": market.deployment.token_symbol,
        "sessions": [views.session_view(item, now_at) for item in sessions.of_buyer(tx, buyer)],
    }

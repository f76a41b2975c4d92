"""Payers without a key over the gateway whose chain is only rows: the till is played by a task."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

from eth_account import Account
from sqlmodel import select
from x402 import x402Client
from x402.mechanisms.evm.exact import register_exact_evm_client

from marketplace.funding.receivers import Receivers
from marketplace.protocol.hexes import from_hex, keccak
from marketplace.protocol.quotes import Quote
from marketplace.protocol.signing import Signer
from marketplace.protocol.tokens import TokenDomain, TransferWithAuthorization
from marketplace.store import outbox
from marketplace.store.tables import OutboxRow, PaymentRow, SessionRow
from tests.flow.gateway import DEPLOYMENT, NOW_AT, Gateway

PAYER = Signer(keccak(b"payer"))
TOKEN = TokenDomain(name="Test Dollar", version="1", chain_id=31337, token=DEPLOYMENT.token)
NETWORK = "eip155:31337"


def install(gateway: Gateway, *, window_seconds: int = 60) -> Receivers:
    """Lets the gateway take payments without a key."""
    till = dataclasses.replace(DEPLOYMENT, till="0x" + "55" * 20, receiver="0x" + "66" * 20)
    receivers = Receivers(till, gateway.market.vault, TOKEN, window_seconds=window_seconds, work_seconds=120)
    gateway.market.receivers = receivers
    return receivers


def kept(gateway: Gateway) -> list[PaymentRow]:
    with gateway.store.reading() as tx:
        return list(tx.exec(select(PaymentRow)))


def wanted(gateway: Gateway, prefix: str) -> list[str]:
    """Intents of the outbox that begin so."""
    with gateway.store.reading() as tx:
        return [row.intent for row in tx.exec(select(OutboxRow)) if row.intent.startswith(prefix)]


@contextlib.asynccontextmanager
async def opening(gateway: Gateway, problem: str | None = None) -> AsyncIterator[None]:
    """Every payment in the outbox opens its session, or fails with `problem`."""
    task = asyncio.create_task(_open_all(gateway, problem))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _open_all(gateway: Gateway, problem: str | None) -> None:
    done: set[str] = set()
    while True:
        for row in kept(gateway):
            intent = f"x402-pay:{row.receiver}"
            if row.receiver in done or intent not in wanted(gateway, "x402-pay"):
                continue
            done.add(row.receiver)
            with gateway.store.transaction() as tx:
                if problem is None:
                    tx.add(session_of(row))
                else:
                    outbox.mark_failed(tx, intent, problem)
        await asyncio.sleep(0.01)


def session_of(row: PaymentRow) -> SessionRow:
    quote = Quote.decode(row.quote)
    return SessionRow(
        session_id=row.session_id,
        buyer=row.receiver,
        key=quote.key,
        node_id=quote.node_id,
        key_epoch=1,
        deposited_atoms=quote.amount_atoms,
        paid_atoms=0,
        through_seq=0,
        expires_at=quote.expires_at,
        opened_block=1,
    )


def client() -> x402Client:
    """The stock client, told which token it may spend."""
    stock = x402Client()
    register_exact_evm_client(stock, Account.from_key(PAYER.secret), networks=NETWORK)
    asset = {"network": NETWORK, "asset": DEPLOYMENT.token, "max_amount_per_payment": str(10**9)}
    stock.set_spend_controls({"allowed_assets": [asset]})
    return stock


def required(answer: Any) -> dict[str, Any]:
    """What a 402 asks for."""
    found: dict[str, Any] = json.loads(base64.b64decode(answer.headers["payment-required"]))
    return found


def payment(
    asked: dict[str, Any], signer: Signer = PAYER, *, identifier: str | None = None, **changes: Any
) -> dict[str, Any]:
    """A payment of the one way that is asked for, as JSON; `changes` are signed."""
    accepted = asked["accepts"][0]
    values = {
        "payer": PAYER.address,
        "to": accepted["payTo"],
        "value_atoms": int(accepted["amount"]),
        "valid_after": 0,
        "valid_before": NOW_AT + 60,
        "nonce": b"\x01" * 32,
    }
    message = TransferWithAuthorization(**(values | changes))
    signature = "0x" + signer.sign(message, TOKEN).hex()
    given = message.to_json()
    extensions = {"payment-identifier": {"info": {"required": False, "id": identifier}}}
    return {
        "x402Version": 2,
        "resource": asked["resource"],
        "accepted": accepted,
        "payload": {"authorization": given, "signature": signature},
    } | ({"extensions": extensions} if identifier else {})


def header(data: Any) -> dict[str, str]:
    """The payment as a header."""
    text = data if isinstance(data, str) else base64.b64encode(json.dumps(data).encode()).decode()
    return {"PAYMENT-SIGNATURE": text}


def nonce_of(row: PaymentRow) -> bytes:
    return TransferWithAuthorization.decode(row.message).nonce


def salt_of(asked: dict[str, Any]) -> bytes:
    return from_hex(asked["accepts"][0]["extra"]["quote"]["salt"], 32)

"""Buyers with a key of their own."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2

from marketplace.protocol import merkle
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.messages import Order, Voucher
from marketplace.protocol.payloads import (
    ChatPayload,
    encode_payload,
)
from marketplace.protocol.signing import Signer
from tests.flow.gateway import CHAT_MODEL, DOMAIN, Gateway
from tests.flow.node import Behaviour, Node


@dataclass
class Sdk:
    """A buyer with a key of its own: signs orders and vouchers itself."""

    gateway: Gateway
    node: Node
    session_id: str
    key: Signer
    seq: int = 0

    def payload(self, **changes: Any) -> bytes:
        values = {
            "model": to_hex(CHAT_MODEL),
            "messages": ({"role": "user", "content": "Hi"},),
            "max_tokens": 16,
        }
        return encode_payload(ChatPayload(**(values | changes)))

    def body(
        self, payload: bytes | None = None, signer: Signer | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Body of `POST /v1/jobs`; `changes` are fields of the order."""
        payload = self.payload() if payload is None else payload
        salt = keccak(b"salt %d" % self.seq)
        self.seq += 1
        values = {
            "session_id": bytes.fromhex(self.session_id[2:]),
            "seq": self.seq,
            "offer_hash": self.node.offer_of(CHAT_MODEL).digest(DOMAIN),
            "request_hash": merkle.request_hash(salt, payload),
            "max_amount_atoms": 1_000,
            "issued_at_ms": self.gateway.clock(),
            "deadline_ms": self.gateway.clock() + 60_000,
            "reply_key": bytes(32),
        }
        order = Order(**(values | changes))
        return {
            "order": order.to_json(),
            "signature": to_hex((signer or self.key).sign(order, DOMAIN)),
            "salt": to_hex(salt),
            "payload": base64.b64encode(payload).decode(),
        }

    async def place(self, body: dict[str, Any] | None = None, **headers: str) -> httpx2.Response:
        return await self.gateway.http.post("/v1/jobs", json=body or self.body(), headers=headers)

    async def receipts(self) -> list[dict[str, Any]]:
        answer = await self.gateway.http.get(f"/v1/sessions/{self.session_id}/receipts")
        return [row for row in answer.json()["data"] if not row["superseded"]]

    async def voucher(self, through_seq: int, signer: Signer | None = None, **changes: Any) -> dict[str, Any]:
        rows = [row for row in await self.receipts() if row["seq"] <= through_seq]
        values = {
            "session_id": bytes.fromhex(self.session_id[2:]),
            "through_seq": through_seq,
            "amount_atoms": sum(int(row["amount_atoms"]) for row in rows),
            "receipts_root": merkle.root([bytes.fromhex(row["digest"][2:]) for row in rows]),
        }
        voucher = Voucher(**(values | changes))
        signature = to_hex((signer or self.key).sign(voucher, DOMAIN))
        return {"voucher": voucher.to_json(), "signature": signature}


@contextlib.asynccontextmanager
async def sdk(gateway: Gateway, behaviour: Behaviour | None = None, **columns: Any) -> AsyncIterator[Sdk]:
    """A buyer with its own key and a session with node 1, which is online."""
    key = Signer(keccak(b"sdk key"))
    async with Node(gateway, 1, gateway.put_node(1), behaviour) as node:
        yield Sdk(gateway, node, gateway.put_session(key.address, **{"node_id": 1} | columns), key)

"""A gateway in memory: its HTTP API over `FakeNode`s."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from marketplace.client.bundle import Bundle
from marketplace.client.desk import Desk
from marketplace.client.gateway import Gateway
from marketplace.client.journal import Journal
from marketplace.client.views import Surroundings
from marketplace.funding.rules import check_payer
from marketplace.protocol import ids
from marketplace.protocol.errors import SPECS, BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.merkle import request_hash, root
from marketplace.protocol.messages import Open, Order, TopUp, Visit, Voucher
from marketplace.protocol.payloads import (
    parse_payload,
    text_chunk,
    units_in_ceiling,
    units_out_ceiling,
)
from marketplace.protocol.pricing import full_price_down
from marketplace.protocol.signing import Signer, signer_of
from tests.client.fakes import DEPLOYMENT, DOMAIN, MODEL_ID, START_MS, Clock, FakeChain, FakeNode

SKEW_MS = 2_000
OWN_KEY: dict[str, Any] = {
    "address": Signer(b"\x42" * 32).address,
    "label": "agent",
    "models": ["tiny-*"],
    "budget_atoms": "1000000",
    "spent_atoms": "600000",
    "spent_last_day_atoms": "200000",
    "left_atoms": "400000",
    "expires_at": None,
    "forecast": {
        "spent_last_hour_atoms": "0",
        "spent_last_day_atoms": "200000",
        "purchases_last_day": 4,
        "based_on_seconds": 86_400,
        "atoms_per_hour": "8333",
        "empty_in_seconds": 172_800,
        "empty_at": 1_800_172_800,
        "ends_at": None,
        "ends_by": "money",
    },
}


class FakeMarket:
    """The gateway's HTTP API over `FakeNode`s; plug in with `transport()`."""

    def __init__(self, nodes: list[FakeNode], clock: Clock) -> None:
        self.chain, self.clock = FakeChain(), clock
        self.nodes = {node.node_id: node for node in nodes}
        for node in nodes:
            self.chain.add_node(node.node_id, node.signer.address)
        self.vouchers: list[Voucher] = []
        self.orders: list[Order] = []
        self.bundles: dict[str, Bundle] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.drop_after_chunks: int | None = None
        self.opens_on_chain = True
        self.check_vouchers = True
        self.down = False
        self.answers_lost = 0
        self.counted: int | None = None
        self.held = asyncio.Event()
        self.names = {"tiny-chat", to_hex(MODEL_ID)}

    def transport(self) -> httpx2.MockTransport:
        return httpx2.MockTransport(self.handle)

    def desk(self, key: Signer, journal: Journal | None = None) -> Desk:
        around = Surroundings(
            now_ms=self.clock.now_ms, sleep=self.clock.sleep, random_bytes=self.clock.random_bytes
        )
        return Desk(
            gateway=Gateway("http://gateway.test", around, transport=self.transport()),
            chain=self.chain,
            deployment=DEPLOYMENT,
            journal=journal or Journal(":memory:"),
            key=key,
            around=around,
        )

    async def handle(self, request: httpx2.Request) -> httpx2.Response:
        if self.down:
            raise httpx2.ConnectError("refused")
        method, path = request.method, request.url.path
        body = json.loads(request.content) if request.content else {}
        self.calls.append((method, path, body))
        if path == "/livez":
            return httpx2.Response(200, json={"ok": True})
        if (method, path) == ("POST", "/v1/jobs"):
            return self.order(request, body)
        found = self.route(method, path, body, request)
        if isinstance(found, ErrorCode):
            return problem(found)
        return httpx2.Response(200, json=found)

    def route(self, method: str, path: str, body: dict[str, Any], request: httpx2.Request) -> Any:
        if (method, path) == ("POST", "/v1/quotes"):
            return self.quotes(body)
        if (method, path) == ("POST", "/v1/sessions"):
            return self.open_session(body)
        if method == "POST" and path.endswith("/topup"):
            return self.top_up(body)
        if (method, path) == ("POST", "/v1/vouchers"):
            return self.voucher(body)
        if (method, path) == ("POST", "/v1/keys"):
            return {"api_key": "sk-watt-demo", "address": Signer(b"\x42" * 32).address}
        return self.read(path, request)

    def read(self, path: str, request: httpx2.Request) -> Any:
        *_, kind, name = ["", *path.removesuffix("/cancel").strip("/").split("/")]
        if path == "/v1/sessions":
            wanted = request.url.params.get("key")
            return {"data": [self.session_row(s) for s, key in self.chain.held if key == wanted]}
        if path.endswith("/receipts"):
            return {"data": self.receipt_rows(kind)}
        if kind == "sessions":
            ids_ = [s for s, _ in self.chain.held if to_hex(s) == name]
            return self.session_row(ids_[0]) if ids_ else ErrorCode.UNKNOWN_SESSION
        if kind == "receipts":
            return self.bundles[name].to_json() if name in self.bundles else ErrorCode.UNKNOWN_RECEIPT
        if kind == "jobs":
            return self.jobs.get(name, ErrorCode.UNKNOWN_JOB)
        return self.listing(path, request)

    def listing(self, path: str, request: httpx2.Request) -> Any:
        if path == "/v1/models":
            row = {
                "id": "tiny-chat",
                "model_id": to_hex(MODEL_ID),
                "task": "chat",
                "context_tokens": 2048,
                "offers": 1,
            }
            prices = {"price_per_job_atoms": "10", "price_in_per_million_atoms": "200000"}
            return {"object": "list", "data": [row | prices | {"price_out_per_million_atoms": "600000"}]}
        if path == "/v1/keys/me":
            return {} if request.method == "DELETE" else OWN_KEY
        if path == "/v1/nodes":
            rows = [self.node_row(node) for node in self.nodes.values()]
            return {"data": rows}
        if path == "/v1/jobs":
            message, signature = request.headers["x-watt-visit"].split(".")
            visit = Visit.decode(from_hex(message))
            if signer_of(visit, DOMAIN, from_hex(signature)) != visit.key:
                return ErrorCode.BAD_SIGNATURE
            return {"object": "list", "data": list(self.jobs.values())}
        return ErrorCode.NOT_FOUND

    def node_row(self, node: FakeNode) -> dict[str, Any]:
        return {
            "node_id": node.node_id,
            "signer": node.signer.address,
            "connected": True,
            "draining": False,
            "queue_depth": 0,
            "free_slots": 2,
            "stake_atoms": "5000000",
            "models": [{"name": "tiny-chat", "task": "chat"}],
        }

    def quotes(self, body: dict[str, Any]) -> Any:
        if body["model"] not in self.names:
            return ErrorCode.UNKNOWN_MODEL
        if "units" in body:
            units = (body["units"]["input"], body["units"]["output"])
        else:
            fields = {k: body[k] for k in ("messages", "max_tokens", "input") if k in body}
            data = {"task": body["task"], "model": to_hex(MODEL_ID), **fields, **body.get("body", {})}
            payload = parse_payload(json.dumps(data).encode())
            units_in = units_in_ceiling(payload) if self.counted is None else self.counted
            units = (units_in, units_out_ceiling(payload))
        most = round(float(body["max_cost"]) * 1e6) if "max_cost" in body else None
        rows = []
        for node in sorted(self.nodes.values(), key=lambda n: n.price_per_job):
            offer, ceiling = node.offer(), full_price_down(node.offer(), *units)
            signer = Signer(b"\x98" * 32) if node.behaviour == "forged offer" else node.signer
            dear = most is not None and ceiling > most
            away = "node" in body and body["node"] != node.node_id
            why = ErrorCode.PRICE_ABOVE_MAX if dear else ErrorCode.ORDER_MISDIRECTED if away else None
            rows.append(
                {
                    "node_id": node.node_id,
                    "offer": offer.to_json(),
                    "offer_signature": to_hex(signer.sign(offer, DOMAIN)),
                    "offer_hash": to_hex(offer.digest(DOMAIN)),
                    "ceiling_atoms": str(ceiling),
                    "units_in_ceiling": units[0],
                    "units_out_ceiling": units[1],
                    "reason": "cheapest",
                    "eligible": why is None,
                    "why_not": why,
                }
            )
        return {
            "n": 1,
            "input_units": {
                "count": units[0],
                "exact": self.counted is not None,
                "estimate": "bytes" if self.counted is None else None,
            },
            "quotes": sorted(rows, key=lambda row: not row["eligible"]),
            "expires_at": START_MS // 1000 + 600,
        }

    def open_session(self, body: dict[str, Any]) -> Any:
        terms = Open.from_json(body["open"])
        try:
            check_payer(terms, from_hex(body["signature"]), DOMAIN, terms)
        except BadRequest:
            return ErrorCode.BAD_SIGNATURE
        session_id = terms.digest(DOMAIN)
        if self.opens_on_chain and (session_id, terms.key) not in self.chain.held:
            self.chain.open(terms)
        return {"session_id": to_hex(session_id), "status": "waiting"}

    def top_up(self, body: dict[str, Any]) -> Any:
        wish, terms = TopUp.from_json(body["top_up"]), Open.from_json(body["open"])
        try:
            check_payer(wish, from_hex(body["signature"]), DOMAIN, terms)
        except BadRequest:
            return ErrorCode.BAD_SIGNATURE
        state = self.chain.held[wish.session_id, terms.key]
        self.chain.accounts[terms.buyer] -= wish.deposited_atoms - state.deposited_atoms
        self.chain.held[wish.session_id, terms.key] = dataclasses.replace(
            state, deposited_atoms=wish.deposited_atoms
        )
        return {"session_id": to_hex(wish.session_id)}

    def session_row(self, session_id: bytes) -> dict[str, Any]:
        (key,) = [k for s, k in self.chain.held if s == session_id]
        state = self.chain.held[session_id, key]
        used = [order.seq for order in self.orders if order.session_id == session_id]
        return {
            "session_id": to_hex(session_id),
            "key": key,
            "node_id": state.node_id,
            "deposited_atoms": str(state.deposited_atoms),
            "paid_atoms": str(state.paid_atoms),
            "next_seq": max(used, default=0) + 1,
            "expires_at": state.expires_at,
            "status": "open",
        }

    def receipts_of(self, session_id: bytes, through: int = 1 << 32) -> list[Bundle]:
        mine = [
            b for b in self.bundles.values() if b.order.session_id == session_id and b.order.seq <= through
        ]
        return sorted(mine, key=lambda b: b.order.seq)

    def receipt_rows(self, session: str) -> list[dict[str, Any]]:
        return [
            {"seq": b.order.seq, "receipt_id": b.receipt_id, "digest": to_hex(b.receipt.digest(DOMAIN))}
            for b in self.receipts_of(from_hex(session))
        ]

    def voucher(self, body: dict[str, Any]) -> Any:
        voucher = Voucher.from_json(body["voucher"])
        covered = self.receipts_of(voucher.session_id, voucher.through_seq)
        due = sum(b.receipt.amount_atoms for b in covered)
        fits = voucher.receipts_root == root([b.receipt.digest(DOMAIN) for b in covered])
        if self.check_vouchers and not (fits and voucher.amount_atoms == due):
            return ErrorCode.VOUCHER_MISMATCH
        self.vouchers.append(voucher)
        return {"taken": False}

    def order(self, request: httpx2.Request, body: dict[str, Any]) -> httpx2.Response:
        order, salt = Order.from_json(body["order"]), from_hex(body["salt"])
        signature, payload = from_hex(body["signature"]), base64.b64decode(body["payload"])
        key = signer_of(order, DOMAIN, signature)
        state = self.chain.session(order.session_id, key)
        if state is None:
            return problem(ErrorCode.UNKNOWN_SESSION)
        node = self.nodes[state.node_id]
        if node.behaviour.startswith("problem "):
            return problem(ErrorCode(node.behaviour.split()[1]))
        assert order.request_hash == request_hash(salt, payload)
        if order not in self.orders:
            if self.clock.ms - order.issued_at_ms > SKEW_MS:
                return problem(ErrorCode.CLOCK_SKEW)
            self.orders.append(order)
        trace_id = request.headers["traceparent"].split("-")[1]
        bundle = next((b for b in self.bundles.values() if b.order == order), None)
        if bundle is None:
            made = node.answer(order, payload, salt, self.clock.ms, trace_id)
            bundle = self.bundle_of(node, order, signature, key, salt, payload, made, trace_id)
        if self.answers_lost:
            self.answers_lost -= 1
            return problem(ErrorCode.NOT_READY)
        headers = {"content-type": "text/event-stream", "x-job-id": bundle.job_id}
        return httpx2.Response(200, headers=headers, content=self.stream(node, bundle))

    def bundle_of(
        self, node: FakeNode, order: Order, signature: bytes, key: str, salt: bytes, payload: bytes,
        made: dict[str, Any], trace_id: str,
    ) -> Bundle:  # fmt: skip
        receipt_id = ids.receipt_id(made["receipt"].digest(DOMAIN))
        bundle = Bundle(
            domain=DOMAIN,
            offer=node.offer(),
            offer_signature=node.signer.sign(node.offer(), DOMAIN),
            order=order,
            order_signature=signature,
            key=key,
            receipt=made["receipt"],
            receipt_signature=made["signature"],
            annex=made["annex"],
            salt=salt,
            payload=payload,
            chunks=tuple(made["chunks"]),
            node_id=node.node_id,
            signer=node.signer.address,
            epoch=1,
            settlement=None,
            trace_id=trace_id,
            job_id=f"job_{order.seq}",
            receipt_id=receipt_id,
        )
        if node.behaviour != "refuse":
            self.bundles[receipt_id] = bundle
            delivered = {"event": "delivered", "at_ms": START_MS + 840, "receipt_id": receipt_id}
            self.jobs[bundle.job_id] = {
                "job_id": bundle.job_id,
                "phase": "delivered",
                "receipt_id": receipt_id,
                "created_at_ms": START_MS,
                "timeline": [{"event": "ordered", "at_ms": START_MS}, delivered],
            }
        return bundle

    async def stream(self, node: FakeNode, bundle: Bundle) -> AsyncIterator[bytes]:
        if node.behaviour == "silent":
            return
        for index, chunk in enumerate(bundle.chunks):
            if self.drop_after_chunks == index:
                self.drop_after_chunks = None
                raise httpx2.ReadError("connection reset")
            text = chunk if node.behaviour != "other text" else text_chunk("Bye")
            yield sse("chunk", {"index": index, "body": base64.b64encode(text).decode()})
            if node.behaviour == "hang":
                await self.held.wait()
            if node.behaviour == "lapse":
                yield sse(
                    "problem", {"code": "lease_lost", "detail": "the node went silent", "charged": False}
                )
                return
            if node.behaviour == "refuse":
                yield sse("problem", {"code": "node_busy", "detail": "refused", "charged": False})
                return
        if node.behaviour == "fail, told":
            told = {"code": "node_failed", "detail": "The node failed", "charged": False}
            yield sse("problem", told | {"job_id": bundle.job_id})
            return
        yield sse("receipt", bundle.to_json())


def sse(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def problem(code: ErrorCode) -> httpx2.Response:
    spec = SPECS[code]
    body = {"title": spec.title, "status": spec.status, "detail": spec.title, "code": code, "hint": spec.hint}
    return httpx2.Response(
        spec.status,
        json=body | {"charged": False, "request_id": "req_1"},
        headers={"content-type": "application/problem+json"},
    )

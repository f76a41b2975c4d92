"""A gateway in memory before nodes that take sealed orders; `tamper` is what it does to what it relays."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2

from marketplace.client.bundle import Bundle
from marketplace.protocol import sealing
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.messages import Order
from marketplace.protocol.sealed import Responses, open_request
from tests.client.fake_market import FakeMarket, sse
from tests.client.fakes import DOMAIN, Clock, FakeNode

# An event of a sealed job as it would leave; None keeps it back.
Tamper = Callable[[str, dict[str, Any]], dict[str, Any] | None]


def secret_of(node_id: int) -> bytes:
    """A node's encryption secret."""
    return keccak(b"sealed node %d" % node_id)


class SealedMarket(FakeMarket):
    """Keeps each sealed request and opens it in its node's place."""

    def __init__(self, nodes: list[FakeNode], clock: Clock) -> None:
        super().__init__(nodes, clock)
        self.tamper: Tamper = lambda _name, data: data
        self.sealed: dict[bytes, tuple[str, Responses]] = {}
        for node_id in self.nodes:
            self.rekey(node_id, sealing.public_key(secret_of(node_id)))

    def rekey(self, node_id: int, key: bytes) -> None:
        """Another encryption key in the registry."""
        known = self.chain.nodes[node_id]
        self.chain.nodes[node_id] = dataclasses.replace(known, encryption_key=key)

    def order(self, request: httpx2.Request, body: dict[str, Any]) -> httpx2.Response:
        if "sealed" not in body:
            return super().order(request, body)
        order = Order.from_json(body["order"])
        node_id = next(s.node_id for (sid, _), s in self.chain.held.items() if sid == order.session_id)
        data, digest = base64.b64decode(body["sealed"]), order.digest(DOMAIN)
        opened = open_request(secret_of(node_id), order, digest, data)
        self.sealed[digest] = (body["sealed"], opened.responses)
        plain = {"salt": to_hex(opened.salt), "payload": base64.b64encode(opened.payload).decode()}
        return super().order(request, body | plain)

    async def stream(self, node: FakeNode, bundle: Bundle) -> AsyncIterator[bytes]:
        async for line in super().stream(node, bundle):
            name, data = line.decode().removeprefix("event: ").split("\n", 1)
            found = self.tamper(name, self.closed(name, json.loads(data.removeprefix("data: ")), bundle))
            if found is not None:
                yield sse(name, found)

    def read(self, path: str, request: httpx2.Request) -> Any:
        found = super().read(path, request)
        bundle = self.bundles.get(path.rsplit("/", 1)[-1])
        return found if bundle is None else self.closed("receipt", found, bundle)

    def closed(self, name: str, data: dict[str, Any], bundle: Bundle) -> dict[str, Any]:
        """An event of a sealed order as the gateway has it."""
        sealed, responses = self.sealed.get(bundle.order.digest(DOMAIN), ("", None))
        if responses is None:
            return data
        if name == "chunk":
            body = responses.seal_chunk(data["index"], base64.b64decode(data["body"]))
            return data | {"body": base64.b64encode(body).decode()}
        if name != "receipt":
            return data
        chunks = [responses.seal_chunk(index, chunk) for index, chunk in enumerate(bundle.chunks)]
        return data | {
            "salt": "0x",
            "request_payload": sealed,
            "annex": base64.b64encode(responses.seal_annex(bundle.annex)).decode(),
            "chunks": [base64.b64encode(chunk).decode() for chunk in chunks],
            "sealed": True,
        }

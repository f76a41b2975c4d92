"""A gateway full of things to ask about, as a process of its own, so that its memory is its own.

`python -m tests.fuzz.serving` prints one line of JSON once it serves, and ends when its standard input does.
Its chain is only rows. Two honest nodes are connected, know every task and answer at once: no call has an
excuse to fail on our side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlmodel import select

from marketplace.dispatch.terms import Terms
from marketplace.keeper.batches import BatchRunner
from marketplace.keeper.clockwork import Clockwork
from marketplace.keeper.courier import Courier
from marketplace.protocol import wire
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.messages import Open
from marketplace.protocol.signing import Signer
from marketplace.store.tables import ModelAliasRow, OutboxRow, PaymentRow
from marketplace.telemetry import logs
from tests.flow.gateway import BUYER, CHAT_MODEL, DOMAIN, EMBED_MODEL, NOW_AT, Clock, Gateway, gateway
from tests.flow.node import Node, bearer, chat_body
from tests.flow.paying import install, session_of
from tests.flow.sdk import Sdk

OWN_KEY: Final = Signer(keccak(b"a buyer's own key"))
TASKS: Final = {
    "tiny": "chat",
    "mini": "embed",
    "sort": "classify",
    "rank": "rerank",
    "look": "classify-image",
}
_IDS: Final = {"tiny": CHAT_MODEL, "mini": EMBED_MODEL}
_ATOMS: Final = 10**12
_PIXEL: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CALLS: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": chat_body(),
    "/v1/completions": {"model": "tiny", "prompt": "Hi", "max_tokens": 4},
    "/v1/responses": {"model": "tiny", "input": "Hi", "max_output_tokens": 4},
    "/v1/embeddings": {"model": "mini", "input": ["Hi"]},
    "/v1/classify": {"model": "sort", "input": ["Hi"], "labels": ["a", "b"]},
    "/v1/rerank": {"model": "rank", "query": "Hi", "documents": ["a", "b"]},
    "/v1/classify-image": {"model": "look", "images": [_PIXEL]},
}


def model_id(name: str) -> bytes:
    """Id of a model on offer."""
    return _IDS.get(name, keccak(name.encode()))


@dataclass
class Moving(Clock):
    """Time that passes, from the tests' own beginning."""

    began: float = field(default_factory=time.monotonic)

    def __call__(self) -> int:
        return self.now_ms + int((time.monotonic() - self.began) * 1000)


class Able(Node):
    """A node that knows every task, and says less than any call allows."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.text, self.units_in = ("Hi",), 1

    async def offer(self, **changes: Any) -> None:
        models = [
            wire.OfferedModel(model_id=model_id(name), name=name, task=task, context_tokens=4096, loaded=True)
            for name, task in TASKS.items()
        ]
        offers = [self.sign(self.offer_of(model.model_id, **changes)) for model in models]
        await self.send(wire.Offers(offers=offers, models=models))

    async def beat(self, running: tuple[bytes, ...] = (), **changes: Any) -> None:
        await super().beat(
            running, **({"loaded": [model_id(name) for name in TASKS], "free_slots": 64} | changes)
        )


async def serve(out: Any, folder: Path) -> None:
    """Serves until standard input ends."""
    clock = Moving()
    _keep_names_at_home()
    terms = Terms(webhook_allow_loopback=True, webhook_timeout_ms=2_000)
    async with gateway(folder, clock=clock, terms=terms) as g, _nodes(g) as nodes:
        install(g)
        async with _turning(g, nodes):
            state = await _filled(g, nodes)
            more = {"url": g.url, "now_ms": clock.now_ms, "began": clock.began}
            print(json.dumps(state | more), file=out, flush=True)
            await asyncio.to_thread(sys.stdin.read)


def _keep_names_at_home() -> None:
    """Whatever a webhook's host is called, it is here, where nobody listens."""
    socket.getaddrinfo = lambda _host, port, *_, **__: [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
    ]


@contextlib.asynccontextmanager
async def _nodes(g: Gateway) -> AsyncIterator[list[Node]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Able(g, node_id, g.put_node(node_id, stake=_ATOMS)))
            for node_id in (1, 2)
        ]


@contextlib.asynccontextmanager
async def _turning(g: Gateway, nodes: Iterable[Node]) -> AsyncIterator[None]:
    """The gateway's own loops, and the till's part, which opens what was paid for."""
    task = asyncio.create_task(_turn(g, nodes))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _turn(g: Gateway, nodes: Iterable[Node]) -> None:
    clockwork, batches, courier = Clockwork(g.market), BatchRunner(g.market), Courier(g.market)
    seen: set[str] = set()
    turn = 0
    while True:
        await clockwork.step()
        await batches.step()
        await courier.step()
        await g.market.write(lambda tx: _open_paid(tx, seen))
        turn += 1
        if turn % 10 == 0:
            for node in nodes:
                await node.beat()
        if turn % 100 == 0:
            await clockwork.sweep()
            await clockwork.forget()
        await asyncio.sleep(0.05)


def _open_paid(tx: Any, seen: set[str]) -> None:
    wanted = select(OutboxRow.intent).where(OutboxRow.intent.startswith("x402-pay:"))
    for intent in tx.exec(wanted):
        if intent not in seen:
            seen.add(intent)
            row = tx.get(PaymentRow, intent.partition(":")[2])
            tx.add(session_of(row))


def own_terms() -> Open:
    """Terms of the session of the buyer who signs for itself: the third that was put there."""
    return Open(
        buyer=BUYER.address, key=OWN_KEY.address, node_id=1, amount_atoms=_ATOMS, open_before=NOW_AT + 600,
        expires_at=NOW_AT + 3600, salt=keccak(b"session 3"),
    )  # fmt: skip


async def _filled(g: Gateway, nodes: list[Node]) -> dict[str, Any]:
    """Something of everything there is; what a fuzzer has to know to reach it."""
    secret, address = await g.new_key()
    opened = [g.put_session(address, node_id, _ATOMS) for node_id in (1, 2)]
    own = g.put_session(OWN_KEY.address, 1, _ATOMS)
    with g.store.transaction() as tx:
        alias = {"publisher": BUYER.address, "fixed": True, "block_number": 1}
        tx.add(ModelAliasRow(alias="tiny@best", model_id="0x" + CHAT_MODEL.hex(), **alias))
    terms = own_terms()
    assert to_hex(terms.digest(DOMAIN)) == own
    buyer = Sdk(g, nodes[0], own, OWN_KEY)
    assert (await buyer.place(accept="text/event-stream")).is_success
    said: list[str] = [address, *(json.dumps({"session_id": one}) for one in (*opened, own))]

    async def post(path: str, **how: Any) -> Any:
        answer = await g.http.post(path, headers=bearer(secret), **how)
        assert answer.is_success, (path, answer.text)
        said.append(answer.text)
        return answer.json()

    await post("/v1/webhooks", json={"url": None})
    await post("/v1/webhooks", json={"url": "http://receiver.example/hook"})
    for path, body in CALLS.items():
        await post(path, json=body)
    await post("/v1/responses", json=CALLS["/v1/responses"] | {"background": True})
    lines = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/chat/completions", "body": chat_body()}
        for n in range(3)
    ]
    content = b"\n".join(json.dumps(line).encode() for line in lines)
    for _ in range(2):
        made = await post("/v1/files", files={"file": ("a.jsonl", content)}, data={"purpose": "batch"})
    batch = {"input_file_id": made["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    await post("/v1/batches", json=batch)
    voucher = await buyer.voucher(buyer.seq)
    more = {"own_session": own, "own_seq": buyer.seq, "voucher": voucher}
    return {"secret": secret, "key": address, "said": said} | more


def main() -> None:
    """Serves from a folder that is gone afterwards; standard output is for the one line only."""
    logs.set_up("WARNING", pretty=False)
    with tempfile.TemporaryDirectory(prefix="wattline-fuzz-") as folder:
        asyncio.run(serve(sys.stdout, Path(folder)))


if __name__ == "__main__":
    main()

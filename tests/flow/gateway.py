"""A gateway on loopback with a chain that is only rows, and nodes that sign for real."""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextlib
import functools
import itertools
import json
import random
import shutil
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from sqlmodel import SQLModel
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from marketplace.api.app import create_app
from marketplace.api.routes.system import Check, Health
from marketplace.chain.deployment import Deployment
from marketplace.dispatch.terms import Terms
from marketplace.flow import Market
from marketplace.funding.vault import Vault
from marketplace.keeper.clockwork import Clockwork
from marketplace.protocol import merkle, wire
from marketplace.protocol.annex import Annex, exec_hash
from marketplace.protocol.hexes import keccak, to_hex
from marketplace.protocol.messages import Hello, Offer, Open, Order, Receipt, Voucher
from marketplace.protocol.payloads import (
    ChatPayload,
    embeddings_chunk,
    encode_payload,
    finish_chunk,
    parse_payload,
    text_chunk,
)
from marketplace.protocol.pricing import amount_due
from marketplace.protocol.signing import Signer
from marketplace.store import sessions
from marketplace.store.engine import Store
from marketplace.store.migrations import upgrade
from marketplace.store.tables import NodeRow, SessionRow
from marketplace.telemetry.metrics import Metrics

NOW_MS = 1_800_000_000_000
NOW_AT = NOW_MS // 1000
BUYER = Signer(b"\x11" * 32)
CHAT_MODEL = keccak(b"chat model")
EMBED_MODEL = keccak(b"embed model")
DEPLOYMENT = Deployment(
    chain_id=31337,
    genesis_hash=b"\x01" * 32,
    deployed_block=1,
    token="0x" + "11" * 20,
    registry="0x" + "22" * 20,
    escrow="0x5FbDB2315678afecb367f032d93F642f64180aa3",
    treasury="0x" + "33" * 20,
    token_symbol="TUSD",
    token_decimals=6,
    min_stake_atoms=1_000,
    max_session_seconds=86_400,
    grace_seconds=900,
)
DOMAIN = DEPLOYMENT.domain


@dataclass
class Clock:
    """Time that only moves when told."""

    now_ms: int = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


def seeded(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


class QuietServer(uvicorn.Server):
    """A server that leaves the process's signals alone."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield


@dataclass
class Gateway:
    """One running gateway."""

    market: Market
    clock: Clock
    url: str
    http: httpx2.AsyncClient
    numbers: itertools.count = field(default_factory=lambda: itertools.count(1))

    @property
    def store(self) -> Store:
        return self.market.store

    async def tick(self) -> None:
        await Clockwork(self.market).step()

    def put_node(self, node_id: int, *, stake: int = 10_000, epoch: int = 1) -> Signer:
        signer = Signer(keccak(b"node key %d %d" % (node_id, epoch)))
        with self.store.transaction() as tx:
            row = NodeRow(
                node_id=node_id,
                owner=Signer(keccak(b"owner %d" % node_id)).address,
                epoch=epoch,
                signer=signer.address,
                encryption_key="0x" + "00" * 32,
                settler=signer.address,
                uri="",
                stake_atoms=stake,
                earnings_atoms=0,
            )
            tx.merge(row)
        return signer

    def put_session(self, key: str, node_id: int, atoms: int = 10_000_000, **columns: Any) -> str:
        number = next(self.numbers)
        terms = Open(
            buyer=BUYER.address,
            key=key,
            node_id=node_id,
            amount_atoms=atoms,
            open_before=NOW_AT + 600,
            expires_at=NOW_AT + 3600,
            salt=keccak(b"session %d" % number),
        )
        session_id = to_hex(terms.digest(DOMAIN))
        values = {
            "session_id": session_id,
            "buyer": BUYER.address,
            "key": key,
            "node_id": node_id,
            "key_epoch": 1,
            "deposited_atoms": atoms,
            "paid_atoms": 0,
            "through_seq": 0,
            "expires_at": NOW_AT + 3600,
            "opened_block": 1,
        }
        with self.store.transaction() as tx:
            tx.add(SessionRow(**(values | columns)))
        return session_id

    def session(self, session_id: str) -> SessionRow:
        with self.store.reading() as tx:
            row = sessions.find(tx, session_id)
        assert row is not None
        return row

    def set_session(self, session_id: str, **columns: Any) -> None:
        with self.store.transaction() as tx:
            row = sessions.find(tx, session_id)
            for name, value in columns.items():
                setattr(row, name, value)

    async def new_key(self) -> tuple[str, str]:
        body = (await self.http.post("/v1/keys", json={"label": "test"})).json()
        return body["api_key"], body["address"]

    def rows(self) -> str:
        """Everything in the database, to show that nothing changed."""
        with self.store.reading() as tx:
            found = {
                name: sorted(map(repr, tx.connection().execute(table.select())))
                for name, table in SQLModel.metadata.tables.items()
                if name not in {"node", "delegate_key"}
            }
        return json.dumps(found)


@functools.cache
def _migrated() -> Path:
    """An empty market database, made once a run."""
    path = Path(tempfile.mkdtemp(prefix="wattline-tests-")) / "market.db"
    store = Store(f"sqlite:///{path}")
    upgrade(store)
    store.close()
    atexit.register(shutil.rmtree, path.parent)
    return path


@contextlib.asynccontextmanager
async def gateway(
    path: Path, *, clock: Clock | None = None, terms: Terms | None = None, url: str | None = None
) -> AsyncIterator[Gateway]:
    """A gateway over the database at `path`; a second one over the same path is a restart."""
    clock = clock or Clock()
    store = Store(url or f"sqlite:///{path / 'market.db'}")
    if url is None and not (path / "market.db").exists():
        shutil.copy(await asyncio.to_thread(_migrated), path / "market.db")
    await asyncio.to_thread(upgrade, store)
    market = Market(
        store,
        DEPLOYMENT,
        Vault(b"\x07" * 32, seeded(7)),
        clock=clock,
        random=seeded(random.Random(str(path)).getrandbits(32) + id(store) % 1000),
        terms=terms or Terms(),
        metrics=Metrics(),
    )
    await market.restart()
    health = Health(checks=lambda: [Check(name="loops", ok=True)], lag_blocks=lambda: 0)
    app = create_app(market, health, max_body_bytes=1 << 20)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws_max_size=wire.MAX_FRAME_BYTES)
    server = QuietServer(config)
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0)
    try:
        async with httpx2.AsyncClient(base_url=base, timeout=20) as http:
            yield Gateway(market=market, clock=clock, url=base, http=http)
    finally:
        market.hang_up()
        server.should_exit = True
        await serving
        market.close()
        store.close()


Behaviour = Callable[["Node", wire.OrderFrame], Awaitable[None]]


class Node:
    """A node over a real WebSocket; `behaviour` says what it does with an order."""

    def __init__(self, gateway: Gateway, node_id: int, signer: Signer, behaviour: Behaviour | None = None):
        self.gateway, self.node_id, self.signer = gateway, node_id, signer
        self.behaviour = behaviour or Node.work
        self.domain, self.valid_until = DOMAIN, NOW_AT + 3600
        self.price = (10, 1_000_000, 2_000_000)
        self.text = ("Hello", " world")
        self.orders: asyncio.Queue[wire.OrderFrame] = asyncio.Queue()
        self.frames: list[wire.FromGateway] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._arrived = asyncio.Event()
        self.closed = asyncio.Event()
        self.socket: ClientConnection | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Node:
        await self.join()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def join(self) -> None:
        await self.greet()
        await self.offer()
        await self.beat()
        await self.expect(wire.Lease)

    async def greet(self, **changes: Any) -> None:
        self.closed.clear()
        self.socket = await connect(self.gateway.url.replace("http", "ws") + "/v1/link", max_size=None)
        challenge = wire.parse_from_gateway(await self.socket.recv())
        assert isinstance(challenge, wire.Challenge)
        hello = Hello(
            node_id=changes.get("node_id", self.node_id),
            challenge=changes.get("challenge", challenge.nonce),
            issued_at_ms=changes.get("issued_at_ms", self.gateway.clock()),
        )
        await self.send(wire.HelloFrame(hello=self.sign(hello)))
        first = wire.parse_from_gateway(await self.socket.recv())
        if not isinstance(first, wire.Welcome):
            self._keep(first)
        else:
            self._reading = asyncio.create_task(self._read())

    async def leave(self) -> None:
        if self.socket is not None:
            await self.socket.close()
        if self._reading is not None:
            await self._reading
        await self.gone()

    async def calm(self) -> None:
        """Until the gateway has taken in everything sent so far."""
        await asyncio.gather(*self.tasks)
        await self.beat()
        await self.expect(wire.Lease)

    async def gone(self) -> None:
        """Until the gateway has noticed."""
        while self.node_id in self.gateway.market.links._links:
            await asyncio.sleep(0)

    async def _read(self) -> None:
        assert self.socket is not None
        try:
            async for text in self.socket:
                frame = wire.parse_from_gateway(text)
                if isinstance(frame, wire.OrderFrame):
                    self.tasks.append(asyncio.create_task(self.behaviour(self, frame)))
                    await self.orders.put(frame)
                else:
                    self._keep(frame)
                    if isinstance(frame, wire.VoucherFrame):
                        await self.take(frame)
        except ConnectionClosed:
            pass
        self.closed.set()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def take(self, frame: wire.VoucherFrame) -> None:
        voucher = Voucher.decode(frame.voucher.message)
        await self.send(wire.VoucherTaken(session_id=voucher.session_id, through_seq=voucher.through_seq))

    async def expect(self, kind: type[Any], seconds: float = 10) -> Any:
        """The next frame of this kind; others stay."""
        async with asyncio.timeout(seconds):
            while True:
                found = next((frame for frame in self.frames if isinstance(frame, kind)), None)
                if found is not None:
                    self.frames.remove(found)
                    return found
                self._arrived.clear()
                await self._arrived.wait()

    def _keep(self, frame: wire.FromGateway) -> None:
        self.frames.append(frame)
        self._arrived.set()

    async def send(self, frame: wire.Frame) -> None:
        assert self.socket is not None
        await self.socket.send(wire.encode_frame(frame))

    def sign(self, message: Any) -> wire.Signed:
        return wire.Signed(message=message.encode(), signature=self.signer.sign(message, self.domain))

    def offer_of(self, model_id: bytes, **changes: Any) -> Offer:
        job, inwards, outwards = self.price
        values = {
            "node_id": self.node_id,
            "model_id": model_id,
            "price_per_job_atoms": job,
            "price_in_per_million_atoms": inwards,
            "price_out_per_million_atoms": outwards,
            "max_latency_ms": 0,
            "late_discount_bps": 0,
            "max_millijoules_per_million_out": 0,
            "valid_until": self.valid_until,
            "salt": bytes(32),
        }
        return Offer(**(values | changes))

    async def offer(self, **changes: Any) -> None:
        models = [
            wire.OfferedModel(model_id=CHAT_MODEL, name="tiny", task="chat", context_tokens=512, loaded=True),
            wire.OfferedModel(
                model_id=EMBED_MODEL, name="mini", task="embed", context_tokens=256, loaded=True
            ),
        ]
        offers = [self.sign(self.offer_of(m, **changes)) for m in (CHAT_MODEL, EMBED_MODEL)]
        await self.send(wire.Offers(offers=offers, models=models))

    async def beat(self, running: tuple[bytes, ...] = (), **changes: Any) -> None:
        values = {
            "free_slots": 4,
            "queue_depth": 0,
            "loaded": [CHAT_MODEL, EMBED_MODEL],
            "running": list(running),
        }
        await self.send(wire.Heartbeat(**(values | changes)))

    def hash_of(self, frame: wire.OrderFrame) -> bytes:
        return Order.decode(frame.order.message).digest(self.domain)

    # ---- behaviours

    async def idle(self, frame: wire.OrderFrame) -> None:
        """Takes the order and does nothing."""
        await self.send(wire.Accepted(order_hash=self.hash_of(frame)))

    async def silent(self, frame: wire.OrderFrame) -> None:
        """Does not even answer."""

    async def refuse(self, frame: wire.OrderFrame) -> None:
        await self.send(wire.Refused(order_hash=self.hash_of(frame), code="node_busy"))

    async def fail(self, frame: wire.OrderFrame) -> None:
        await self.idle(frame)
        await self.deliver(frame, status=0, finish="error", chunks=[])

    async def work(self, frame: wire.OrderFrame) -> None:
        await self.idle(frame)
        await self.deliver(frame)

    def chunks_of(self, frame: wire.OrderFrame) -> list[bytes]:
        payload = parse_payload(frame.payload)
        if isinstance(payload, ChatPayload):
            return [*(text_chunk(text) for text in self.text), finish_chunk("stop")]
        return [embeddings_chunk(0, [struct.pack("<3f", 1, i, 0.5) for i, _ in enumerate(payload.input)])]

    def receipt_of(
        self,
        frame: wire.OrderFrame,
        chunks: list[bytes],
        *,
        status: int = 1,
        finish: str = "stop",
        **changes: Any,
    ) -> tuple[Receipt, bytes]:
        order = Order.decode(frame.order.message)
        payload = parse_payload(frame.payload)
        chat = isinstance(payload, ChatPayload)
        units_in, units_out = (5, len(chunks) - 1 if chat and chunks else 0) if status else (0, 0)
        annex = Annex(
            trace_id=frame.trace_id,
            model=payload.model,
            engine="fake",
            torch="0",
            dtype="float32",
            seed="0",
            units_in=units_in,
            units_out=units_out,
            finish=finish,
            device_microseconds=10,
            energy_method="none",
        ).encode()
        now = self.gateway.clock()
        offer = self.offer_of(CHAT_MODEL if chat else EMBED_MODEL)
        values = {
            "order_hash": order.digest(self.domain),
            "response_hash": merkle.response_hash(frame.salt, chunks),
            "exec_hash": exec_hash(annex),
            "units_in": units_in,
            "units_out": units_out,
            "amount_atoms": amount_due(
                offer, order, units_in=units_in, units_out=units_out, finished_at_ms=now, status=status
            ),
            "started_at_ms": now,
            "finished_at_ms": now,
            "energy_millijoules": 0,
            "status": status,
        }
        return Receipt(**(values | changes)), annex

    async def deliver(
        self, frame: wire.OrderFrame, *, chunks: list[bytes] | None = None, **changes: Any
    ) -> wire.ReceiptFrame:
        chunks = self.chunks_of(frame) if chunks is None else chunks
        await self.send_chunks(frame, chunks)
        receipt, annex = self.receipt_of(frame, chunks, **changes)
        return await self.send_receipt(frame, receipt, annex, len(chunks))

    async def send_chunks(self, frame: wire.OrderFrame, chunks: list[bytes]) -> None:
        for index, body in enumerate(chunks):
            await self.send(wire.ChunkFrame(order_hash=self.hash_of(frame), index=index, body=body))

    async def send_receipt(
        self, frame: wire.OrderFrame, receipt: Receipt, annex: bytes, chunks: int
    ) -> wire.ReceiptFrame:
        sent = wire.ReceiptFrame(
            order_hash=self.hash_of(frame), receipt=self.sign(receipt), annex=annex, chunks=chunks
        )
        await self.send(sent)
        return sent


def voucher_of(frame: wire.VoucherFrame) -> tuple[Voucher, bytes]:
    return Voucher.decode(frame.voucher.message), frame.voucher.signature


@contextlib.asynccontextmanager
async def funded(
    gateway: Gateway, *node_ids: int, behaviours: dict[int, Behaviour] | None = None, atoms: int = 10_000_000
) -> AsyncIterator[tuple[str, dict[int, Node], dict[int, str]]]:
    """A bearer key with a session for each of these nodes, all of them online."""
    secret, address = await gateway.new_key()
    async with contextlib.AsyncExitStack() as stack:
        nodes, opened = {}, {}
        for node_id in node_ids:
            signer = gateway.put_node(node_id)
            node = Node(gateway, node_id, signer, (behaviours or {}).get(node_id))
            nodes[node_id] = await stack.enter_async_context(node)
            opened[node_id] = gateway.put_session(address, node_id, atoms)
        yield secret, nodes, opened


def chat_body(**changes: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 16} | changes


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


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

"""Nodes over a real WebSocket that sign for real, and buyers with a bearer key."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from marketplace.protocol import merkle, wire
from marketplace.protocol.annex import AnnexV1, exec_hash
from marketplace.protocol.messages import Hello, Offer, Order, Receipt, Voucher
from marketplace.protocol.payloads import (
    ChatPayload,
    EmbedPayload,
    embeddings_chunk,
    parse_payload,
)
from marketplace.protocol.pricing import amount_due
from marketplace.protocol.signing import Signer
from tests.answers import chunks_for
from tests.flow.gateway import CHAT_MODEL, DOMAIN, EMBED_MODEL, NOW_AT, Gateway

Behaviour = Callable[["Node", wire.OrderFrame], Awaitable[None]]


class Node:
    """A node over a real WebSocket; `behaviour` says what it does with an order."""

    def __init__(self, gateway: Gateway, node_id: int, signer: Signer, behaviour: Behaviour | None = None):
        self.gateway, self.node_id, self.signer = gateway, node_id, signer
        self.behaviour = behaviour or Node.work
        self.domain, self.valid_until = DOMAIN, NOW_AT + 3600
        self.price = (10, 1_000_000, 2_000_000)
        self.text = ("Hello", " world")
        self.embed_model_task = "embed"
        self.units_in = 5
        self.counted: int | None = None
        self.counts_at_all = True
        self.count_seconds = 0.0
        self.counts: list[wire.Count] = []
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
        while self.node_id in self.gateway.market.links._links:  # noqa: ASYNC110 - it offers no event
            await asyncio.sleep(0)

    async def _read(self) -> None:
        assert self.socket is not None
        try:
            async for text in self.socket:
                frame = wire.parse_from_gateway(text)
                if isinstance(frame, wire.OrderFrame):
                    self.tasks.append(asyncio.create_task(self.behaviour(self, frame)))
                    await self.orders.put(frame)
                elif isinstance(frame, wire.Count):
                    self.counts.append(frame)
                    if self.counts_at_all:
                        await asyncio.sleep(self.count_seconds)
                        await self.send(wire.Counted(number=frame.number, units_in=self.counted))
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

    async def offer(self, *, without: bytes = b"", **changes: Any) -> None:
        models = [
            wire.OfferedModel(model_id=CHAT_MODEL, name="tiny", task="chat", context_tokens=512, loaded=True),
            wire.OfferedModel(
                model_id=EMBED_MODEL,
                name="mini",
                task=self.embed_model_task,
                context_tokens=256,
                loaded=True,
            ),
        ]
        models = [model for model in models if model.model_id != without]
        offers = [self.sign(self.offer_of(model.model_id, **changes)) for model in models]
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
        if isinstance(payload, EmbedPayload):
            return [embeddings_chunk(0, [struct.pack("<3f", 1, i, 0.5) for i, _ in enumerate(payload.input)])]
        return chunks_for(payload, text=self.text)

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
        units_in, units_out = (self.units_in, len(chunks) - 1 if chat and chunks else 0) if status else (0, 0)
        annex = AnnexV1(
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

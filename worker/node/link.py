"""The link to one gateway: opened by the node, opened again for ever when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from marketplace.protocol import wire
from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.messages import Hello
from marketplace.protocol.signing import Signer
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.node.delivery import Delivery

_BACK_OFF_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_HANDSHAKE_SECONDS: Final = 10.0
_GOING_AWAY: Final = 1001
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})

log = get_logger(__name__)


class LinkState(StrEnum):
    """Whether a gateway hears us."""

    UP = "up"
    DOWN = "down"


class LinkRefused(Exception):
    """The other side is not a gateway of this node's market."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this node is towards a gateway; `encryption_secret` opens requests that are sealed to it."""

    node_id: int
    signer: Signer
    domain: Domain
    encryption_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCalls:
    """What a link asks of the daemon.

    Attributes:
        offers: current offers; asked at the start and every `offers_seconds`.
        heartbeat: the node's load; gets the orders this gateway waits for.
        receive: handles one frame; its answers go through the sender it is given.
        changed: hears whether the link is up.
    """

    offers: Callable[[], Awaitable[wire.Offers]]
    heartbeat: Callable[[list[bytes]], Awaitable[wire.Heartbeat]]
    receive: Callable[[wire.FromGateway, str, Callable[[wire.Frame], Awaitable[None]]], Awaitable[None]]
    changed: Callable[[str, LinkState], None]


class Link:
    """One gateway."""

    def __init__(
        self,
        url: str,
        identity: Identity,
        delivery: Delivery,
        calls: LinkCalls,
        now_ms: Callable[[], int],
        *,
        offers_seconds: float,
    ) -> None:
        self.url = url
        self.delivery = delivery
        self._identity = identity
        self._calls = calls
        self._now_ms = now_ms
        self._offers_seconds = offers_seconds
        self._connection: ClientConnection | None = None
        self._refresh = asyncio.Event()
        self._renew = asyncio.Event()
        self._was_up = False

    async def run(self) -> None:
        """Keeps the link up until cancelled."""
        failures = 0
        while True:
            try:
                await self._once()
                failures = 0
            except (OSError, WebSocketException, TimeoutError, LinkRefused, BadRequest) as error:
                log.warning(
                    Log.NODE_DISCONNECTED, gateway=self.url, reason=str(error) or type(error).__name__
                )
            except (
                Exception
            ) as error:  # loop edge: a locked ledger or our own defect; the next link starts clean
                log.exception(Log.LOOP_FAILED, loop="link", gateway=self.url, reason=type(error).__name__)
            finally:
                self._connection = None
                if self._was_up:
                    failures = 0
                self._calls.changed(self.url, LinkState.DOWN)
            await asyncio.sleep(_BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)])
            failures += 1

    def beat_now(self) -> None:
        """Sends a heartbeat soon, such as when the node starts to drain."""
        self._refresh.set()

    def offer_now(self) -> None:
        """Sends offers soon, such as when the node serves other models."""
        self._renew.set()

    async def send(self, frame: wire.Frame) -> None:
        """Sends a frame. Raises `OSError` when the link is down."""
        connection = self._connection
        if connection is None:
            raise ConnectionResetError("the link is down")
        await connection.send(wire.encode_frame(frame))

    async def _once(self) -> None:
        self._was_up = False
        local = urlsplit(self.url).hostname in _LOOPBACK
        # A proxy named in the environment must not stand between us and a gateway on this machine, and there
        # nothing is won by compressing every frame.
        options = {"proxy": None, "compression": None} if local else {}
        async with connect(self.url, max_size=wire.MAX_FRAME_BYTES, **options) as connection:  # type: ignore[arg-type]
            welcome = await self._greet(connection)
            self._connection, self._was_up = connection, True
            self._calls.changed(self.url, LinkState.UP)
            log.info(Log.NODE_CONNECTED, gateway=self.url, node_id=self._identity.node_id)
            await self.send(await self._calls.offers())
            await self.delivery.restart()
            try:
                await self._talk(connection, welcome)
            except asyncio.CancelledError:
                # The daemon stops: say goodbye, or the gateway takes it for a crash.
                await connection.close(_GOING_AWAY, "node stops")
                raise

    async def _greet(self, connection: ClientConnection) -> wire.Welcome:
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            challenge = wire.parse_from_gateway(await connection.recv())
            if not isinstance(challenge, wire.Challenge):
                raise LinkRefused(f"expected a challenge, got {challenge.kind}")
            await self._check(connection, challenge)
            hello = Hello(
                node_id=self._identity.node_id, challenge=challenge.nonce, issued_at_ms=self._now_ms()
            )
            signed = wire.Signed(
                message=hello.encode(), signature=self._identity.signer.sign(hello, self._identity.domain)
            )
            await connection.send(wire.encode_frame(wire.HelloFrame(hello=signed)))
            welcome = wire.parse_from_gateway(await connection.recv())
        if isinstance(welcome, wire.Problem):
            raise LinkRefused(f"{welcome.code}: {welcome.detail}")
        if not isinstance(welcome, wire.Welcome):
            raise LinkRefused(f"expected a welcome, got {welcome.kind}")
        return welcome

    async def _check(self, connection: ClientConnection, challenge: wire.Challenge) -> None:
        domain = self._identity.domain
        here = (wire.VERSION, domain.chain_id, domain.escrow)
        there = (challenge.version, challenge.chain_id, challenge.escrow)
        if here == there and len(challenge.nonce) == 32:
            return
        detail = f"gateway speaks (version, chain, escrow) {there}, this node {here}"
        problem = wire.Problem(code=ErrorCode.WRONG_CHAIN.value, detail=detail, fatal=True)
        await connection.send(wire.encode_frame(problem))
        raise LinkRefused(detail)

    async def _talk(self, connection: ClientConnection, welcome: wire.Welcome) -> None:
        tasks = [
            asyncio.create_task(self._beat(welcome.heartbeat_ms / 1000), name="heartbeat"),
            asyncio.create_task(self._offer(), name="offers"),
            asyncio.create_task(self.delivery.run(self.send), name="delivery"),
            asyncio.create_task(self._read(connection), name="read"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self, every_seconds: float) -> None:
        while True:
            await self.send(await self._calls.heartbeat(self.delivery.open))
            try:
                async with asyncio.timeout(every_seconds):
                    await self._refresh.wait()
                self._refresh.clear()
            except TimeoutError:
                continue

    async def _offer(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._offers_seconds):
                    await self._renew.wait()
            self._renew.clear()
            await self.send(await self._calls.offers())

    async def _read(self, connection: ClientConnection) -> None:
        # Frames are handled side by side: an order that waits for the chain must not hold up a lease.
        handling: set[asyncio.Task[None]] = set()
        try:
            async for text in connection:
                frame = await self._parse(text)
                if frame is not None:
                    task = asyncio.create_task(self._handle(frame))
                    handling.add(task)
                    task.add_done_callback(handling.discard)
        finally:
            await asyncio.gather(*handling, return_exceptions=True)
        # The other side closed in order; open it again.
        raise ConnectionResetError("the gateway closed the link")

    async def _parse(self, text: str | bytes) -> wire.FromGateway | None:
        try:
            frame = wire.parse_from_gateway(text)
        except BadRequest as error:
            await self.send(wire.Problem(code=error.code.value, detail=error.detail))
            return None
        if isinstance(frame, wire.Problem):
            log.warning(Log.NODE_REFUSED, gateway=self.url, code=frame.code, reason=frame.detail)
            if frame.fatal:
                raise LinkRefused(f"{frame.code}: {frame.detail}")
            return None
        return frame

    async def _handle(self, frame: wire.FromGateway) -> None:
        try:
            await self._calls.receive(frame, self.url, self.send)
        except (OSError, WebSocketException) as error:
            # The link broke under the answer; after the next connect both sides repeat themselves.
            log.debug(Log.NODE_DISCONNECTED, gateway=self.url, reason=type(error).__name__)
        except Exception as error:  # loop edge: one frame that fails must not silence the link
            log.exception(Log.LOOP_FAILED, loop="frames", frame=frame.kind, reason=type(error).__name__)

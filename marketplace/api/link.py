"""The nodes' WebSocket: challenge, hello, then frames until either side leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Final

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from marketplace import returned
from marketplace.dispatch import intake, returns
from marketplace.dispatch.links import Link
from marketplace.flow import Market
from marketplace.protocol import wire
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode, LostRace, WattError
from marketplace.protocol.hexes import to_hex
from marketplace.store.jobs import OrderState
from marketplace.telemetry.logs import bound, get_logger
from marketplace.telemetry.names import Log

HELLO_SECONDS: Final = 10
_FRAMES_AHEAD: Final = 64
_LARGE_CHARACTERS: Final = 64 << 10
_POLICY: Final = 1008
log = get_logger(__name__)


def routes(market: Market) -> APIRouter:
    """The link's route."""
    router = APIRouter()

    @router.websocket("/v1/link")
    async def link(socket: WebSocket) -> None:
        await socket.accept()
        try:
            node_id = await _greeted(socket, market)
        except (TimeoutError, WebSocketDisconnect):
            await _close(socket)
            return
        except WattError as error:
            log.warning(Log.NODE_REFUSED, code=error.code.value, detail=error.detail)
            await socket.send_text(wire.encode_frame(_problem(error, fatal=True)))
            await _close(socket)
            return
        await _serve(socket, market, Link(node_id))

    return router


async def _greeted(socket: WebSocket, market: Market) -> int:
    nonce = market.random(32)
    deployment = market.deployment
    challenge = wire.Challenge(nonce=nonce, chain_id=deployment.chain_id, escrow=deployment.escrow)
    await socket.send_text(wire.encode_frame(challenge))
    frame = wire.parse_from_node(await asyncio.wait_for(_receive(socket), HELLO_SECONDS))
    if not isinstance(frame, wire.HelloFrame):
        raise BadRequest(ErrorCode.BAD_SIGNATURE, "the first frame must be a hello")
    now, least = market.clock(), deployment.min_stake_atoms
    node_id = await market.read(
        lambda tx: intake.greet(tx, frame, nonce, market.domain, now_ms=now, min_stake_atoms=least)
    )
    terms = market.terms
    welcome = wire.Welcome(heartbeat_ms=terms.heartbeat_ms, lease_ms=terms.lease_ms)
    await socket.send_text(wire.encode_frame(welcome))
    return node_id


async def _serve(socket: WebSocket, market: Market, link: Link) -> None:
    log.info(Log.NODE_CONNECTED, node_id=link.node_id)
    inbox: asyncio.Queue[str | None] = asyncio.Queue(_FRAMES_AHEAD)
    writing = asyncio.create_task(_write(socket, link))
    listening = asyncio.create_task(_listen(socket, inbox))
    reading = asyncio.create_task(_read(socket, market, link, inbox))
    try:
        await market.attach(link)
        await asyncio.wait({writing, reading}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        link.close()
        listening.cancel()
        reading.cancel()
        await asyncio.gather(listening, reading, writing, return_exceptions=True)
        await market.detach(link)
        await _close(socket)
        log.info(Log.NODE_DISCONNECTED, node_id=link.node_id)


async def _write(socket: WebSocket, link: Link) -> None:
    while (frame := await link.next()) is not None:
        await socket.send_text(wire.encode_frame(frame))


async def _listen(socket: WebSocket, inbox: asyncio.Queue[str | None]) -> None:
    """Reads ahead, but nothing beyond a large frame: what is not read yet takes no memory here."""
    try:
        while True:
            text = await _receive(socket)
            await inbox.put(text)
            if len(text) > _LARGE_CHARACTERS:
                await inbox.join()
    except (WebSocketDisconnect, RuntimeError):
        # However it ended: what came before is still taken.
        await inbox.put(None)


async def _read(socket: WebSocket, market: Market, link: Link, inbox: asyncio.Queue[str | None]) -> None:
    with bound(node_id=str(link.node_id)):
        try:
            while True:
                texts = [await inbox.get(), *(inbox.get_nowait() for _ in range(inbox.qsize()))]
                await _take_all(market, link, [text for text in texts if text is not None])
                if texts[-1] is None:
                    return
                for _ in texts:
                    inbox.task_done()
        except _Missing as missing:
            await socket.send_text(wire.encode_frame(_problem(missing.why, fatal=True)))


async def _take_all(market: Market, link: Link, texts: Iterable[str]) -> None:
    """Takes frames in order, but all at once what they say of orders: chunks need not wait for the disk."""
    said: list[returned.Frame] = []
    for text in texts:
        try:
            frame = wire.parse_from_node(text)
        except WattError as error:
            _refuse(link, error)
            continue
        if isinstance(frame, returned.Frame):
            said.append(frame)
            continue
        if not isinstance(frame, wire.ChunkFrame):
            await _say(market, link, said)
            said = []
        await _tried(link, _take(market, link, frame))
    await _say(market, link, said)


async def _say(market: Market, link: Link, frames: Sequence[returned.Frame]) -> None:
    """Takes frames at once; where something of them is wrong, each by itself."""
    if len(frames) > 1 and await _tried(link, market.said(link, frames), again=True):
        return
    for frame in frames:
        await _tried(link, market.said(link, [frame]))


async def _tried(link: Link, work: Coroutine[None, None, None], *, again: bool = False) -> bool:
    """Takes frames; if that can't be, nothing has changed, and their node is told unless they come `again`.

    Raises:
        _Missing: the link must end.
    """
    try:
        await _whole(work)
    except LostRace as race:
        log.info(Log.RACE_LOST, reason=race.detail)
    except WattError as error:
        if not again:
            _refuse(link, error)
    except Exception:  # link edge: a defect of ours in one frame must not end the node's other work
        log.exception(Log.REQUEST_FAILED)
        if not again:
            link.send(_problem(Broken(ErrorCode.INTERNAL), fatal=False))
    else:
        return True
    return False


class _Missing(Exception):
    """Chunks are missing: only a fresh link makes the node tell everything from the start."""

    def __init__(self, why: WattError) -> None:
        super().__init__(why.detail)
        self.why = why


def _refuse(link: Link, error: WattError) -> None:
    log.warning(Log.NODE_REFUSED, code=error.code.value, detail=error.detail)
    if error.code is ErrorCode.NOT_READY:
        raise _Missing(error)
    link.send(_problem(error, fatal=False))


async def _whole(work: Coroutine[None, None, None]) -> None:
    """Finishes `work` though the link ends meanwhile: what was committed must also be followed up."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def _take(market: Market, link: Link, frame: wire.FromNode) -> None:
    node_id = link.node_id
    match frame:
        case wire.Heartbeat():
            await _beat(market, link, frame)
        case wire.ChunkFrame():
            await _chunk(market, node_id, frame)
        case wire.Counted():
            market.counter.take(node_id, frame)
        case wire.Refused():
            log.info(Log.NODE_REFUSED, node_id=node_id, code=frame.code, detail=frame.detail[:200])
            await market.refused(node_id, to_hex(frame.order_hash), frame.code)
        case wire.Offers():
            now = market.clock()
            await market.write(lambda tx: intake.take_offers(tx, node_id, frame, market.domain, now))
            log.info(Log.OFFERS_TAKEN, node_id=node_id, offers=len(frame.offers))
        case wire.HelloFrame():
            raise BadRequest(ErrorCode.INVALID_REQUEST, "the link has had its hello")
        case wire.Problem():
            log.warning(Log.NODE_REFUSED, node_id=node_id, code=frame.code, detail=frame.detail[:200])


async def _beat(market: Market, link: Link, frame: wire.Heartbeat) -> None:
    now = market.clock()
    until = now + market.terms.lease_ms
    # Durable before it is promised: a lease the node believes in must survive a crash here.
    held = await market.write(lambda tx: intake.beat(tx, link.node_id, frame, now, until))
    link.send(wire.Lease(orders=held, until_ms=until))


async def _chunk(market: Market, node_id: int, frame: wire.ChunkFrame) -> None:
    order_hash = to_hex(frame.order_hash)
    assembly = market.streams.assembly(order_hash)
    if assembly is None:
        order = await market.read(lambda tx: returns.own_order(tx, node_id, order_hash))
        live = order.state == OrderState.OPEN
        assembly = market.streams.bind(order_hash, order.job_id, node_id, live=live)
    if assembly.node_id != node_id:
        raise BadRequest(ErrorCode.ORDER_MISDIRECTED, f"order {order_hash} is not one of yours")
    market.streams.take(order_hash, frame.index, frame.body)
    if assembly.chunks and assembly.first_ms is None:
        assembly.first_ms = market.clock()


async def _receive(socket: WebSocket) -> str:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1006))
    return message.get("text") or ""


def _problem(error: WattError, *, fatal: bool) -> wire.Problem:
    return wire.Problem(code=error.code.value, detail=error.detail, fatal=fatal)


async def _close(socket: WebSocket) -> None:
    if socket.application_state is WebSocketState.CONNECTED:
        try:
            await socket.close(_POLICY)
        except (RuntimeError, WebSocketDisconnect):
            log.debug(Log.NODE_DISCONNECTED, reason="it had closed already")

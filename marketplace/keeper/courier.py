"""Takes messages from the store to their webhooks: at least once, one after the other for each webhook."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from marketplace.flow import Market
from marketplace.hooks import step
from marketplace.hooks.post import Post
from marketplace.protocol import webhooks as messages
from marketplace.store import webhooks
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

_MOST: Final = 32
log = get_logger(__name__)


class Courier:
    """One turn starts a round for each webhook that something is due for; slow receivers hold up no others.

    Nothing is remembered between turns but which rounds run, so a restart goes on where the store stands.

    Args:
        post: other than the one the market's terms ask for.
    """

    def __init__(self, market: Market, post: Post | None = None) -> None:
        self._market = market
        self._post = post or Post(
            allow_loopback=market.terms.webhook_allow_loopback,
            seconds=market.terms.webhook_timeout_ms / 1000,
        )
        self._rounds: dict[str, asyncio.Task[None]] = {}

    async def step(self) -> None:
        """Starts the rounds that are due."""
        self._forget_ended()
        now = self._market.clock()
        for webhook_id in await self._market.read(lambda tx: webhooks.waiting_hooks(tx, now, 2 * _MOST)):
            if webhook_id not in self._rounds and len(self._rounds) < _MOST:
                self._rounds[webhook_id] = asyncio.create_task(self._round(webhook_id))

    async def prune(self) -> None:
        """Forgets what nobody will ask for any more."""
        now = self._market.clock()
        await self._market.write(lambda tx: step.prune(tx, now))

    async def idle(self) -> None:
        """Waits until every round has ended. Raises what one of them met."""
        await asyncio.gather(*self._rounds.values())

    async def close(self) -> None:
        """Ends the rounds at once; what was under way is sent again after the restart."""
        for task in self._rounds.values():
            task.cancel()
        await asyncio.gather(*self._rounds.values(), return_exceptions=True)

    async def _round(self, webhook_id: str) -> None:
        market = self._market
        secret = step.secret(market.vault.derive, webhook_id)
        while True:
            now = market.clock()
            parcel = await market.write(partial(step.take, webhook_id=webhook_id, now_ms=now))
            if parcel is None:
                return
            headers = messages.headers(secret, parcel.message_id, now // 1000, parcel.body)
            answer = await self._post.send(parcel.url, headers, parcel.body)
            market.metrics.count("webhook_deliveries_total", result="taken" if answer.taken else "failed")
            noted = partial(step.note, parcel=parcel, answer=answer, now_ms=market.clock())
            if await market.write(noted):
                log.warning(Log.WEBHOOK_DISABLED, webhook_id=webhook_id)
            if not answer.taken:
                # The rest waits for the next turn: who failed once will hardly take the next at once.
                return

    def _forget_ended(self) -> None:
        for webhook_id, task in list(self._rounds.items()):
            if task.done():
                del self._rounds[webhook_id]
                # Its error, if any, belongs to this turn: the loop logs it and goes on.
                task.result()

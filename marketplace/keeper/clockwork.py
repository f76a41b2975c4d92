"""What time alone brings: leases lapse, jobs expire, waiting jobs find nodes, dead sessions pay back."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final

from marketplace.batches import step as batches
from marketplace.dispatch import forget, once
from marketplace.flow import Market
from marketplace.funding import step as funding
from marketplace.funding.receivers import return_ended
from marketplace.protocol.errors import LostRace
from marketplace.settlement import step as settlement
from marketplace.store import jobs
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log

log = get_logger(__name__)
_BATCH: Final = 100
_FEW: Final = 20


class Clockwork:
    """One turn looks at everything that is due by the market's clock; restartable anywhere."""

    def __init__(self, market: Market) -> None:
        self._market = market

    async def step(self) -> None:
        """Ends what is overdue and moves on what waits."""
        market = self._market
        now = market.clock()
        overdue = now - market.terms.delivery_grace_ms
        # One look for all three: mostly nothing is due, and this is asked several times a second.
        lapsed, late, waiting = await market.read(
            lambda tx: (
                jobs.lapsed(tx, now, _BATCH),
                jobs.overdue(tx, overdue, _BATCH),
                jobs.waiting(tx, _BATCH),
            )
        )
        for order_hash in lapsed:
            await _dropping_races(market.lapse(order_hash, now))
        for job_id in late:
            await _dropping_races(market.expire(job_id, now))
        for job_id in waiting:
            await _dropping_races(market.reissue(job_id))

    async def sweep(self) -> None:
        """Refunds jobs of dead sessions, asks the escrow to return their rest; forgets yesterday's names."""
        market = self._market
        now, deployment = market.clock(), market.deployment
        await market.write(lambda tx: once.forget(tx, now))
        await market.write(lambda tx: settlement.refund_unpayable(tx, now, deployment.grace_seconds))
        await market.write(lambda tx: funding.return_expired(tx, deployment, now))
        if (receivers := market.receivers) is not None:
            await market.write(lambda tx: return_ended(tx, receivers, now // 1000))

    async def forget(self) -> None:
        """Deletes the content of jobs, and the files, whose time to be kept is over."""
        market = self._market
        now, signer, domain = market.clock(), market.vault.identity, market.domain
        # A few at a time: others want to write in between. Files first, whose lines need not be emptied then.
        while await market.erase(lambda tx: batches.expire_files(tx, now, _FEW)) == _FEW:
            continue
        while await market.erase(lambda tx: forget.expire(tx, signer, domain, now, _FEW)) == _FEW:
            continue


async def _dropping_races(work: Awaitable[None]) -> None:
    try:
        await work
    except LostRace as race:
        log.info(Log.RACE_LOST, reason=race.detail)

"""Sends what the outbox wants, once each, and reports how it ended."""

from __future__ import annotations

from typing import Final

from marketplace.chain.calls import Call
from marketplace.chain.client import ChainClient
from marketplace.chain.sender import Sender
from marketplace.keeper.loops import Probe, no_probe
from marketplace.protocol.errors import BadRequest, LostRace
from marketplace.protocol.transactions import TxRecord
from marketplace.store import outbox
from marketplace.store.engine import Store
from marketplace.store.outbox import OutboxEntry, OutboxState
from marketplace.store.transactions import StoreJournal
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.metrics import Metrics
from marketplace.telemetry.names import Log

_AT_ONCE: Final = 50
_DISPLACED: Final = "another transaction took its nonce; it can never be mined"

log = get_logger(__name__)


class Pump:
    """One per sending key. A turn may be cut short anywhere: the journal decides what was signed already.

    Args:
        sender: over a `StoreJournal` of the same store.
    """

    def __init__(
        self,
        chain: ChainClient,
        sender: Sender,
        store: Store,
        *,
        metrics: Metrics | None = None,
        probe: Probe = no_probe,
    ) -> None:
        self._chain = chain
        self._sender = sender
        self._store = store
        self._journal = StoreJournal(store)
        self._metrics = metrics
        self._probe = probe

    def step(self) -> list[OutboxEntry]:
        """Sends what waits, looks after what was sent; returns the entries that moved.

        Raises:
            ChainTrouble: the chain does not answer; the rest waits for the next turn.
        """
        with self._store.reading() as db:
            waiting = outbox.waiting(db, limit=_AT_ONCE)
        moved = {entry.wanted.intent: self._send(entry) for entry in waiting}
        for record in self._sender.step():
            self._count(record)
        self._probe("pump.looked")
        followed = self._followed()
        self._probe("pump.followed")
        moved |= {entry.wanted.intent: self._explained(entry) for entry in followed}
        return [entry for entry in moved.values() if entry is not None]

    def _send(self, entry: OutboxEntry) -> OutboxEntry | None:
        wanted = entry.wanted
        call = Call(to=wanted.contract, data=wanted.data, what=wanted.what)
        try:
            self._sender.send(wanted.intent, call, wanted.trace_id)
        except BadRequest as refused:
            log.warning(Log.TX_REVERTED, intent=wanted.intent, reason=refused.detail)
            with self._store.transaction() as db:
                outbox.mark_failed(db, wanted.intent, refused.detail)
                return outbox.find(db, wanted.intent)
        except LostRace as race:
            log.warning(Log.RACE_LOST, intent=wanted.intent, reason=race.detail)
            return None
        self._probe("pump.sent")
        with self._store.transaction() as db:
            outbox.mark_sent(db, wanted.intent)
            return outbox.find(db, wanted.intent)

    def _explained(self, entry: OutboxEntry) -> OutboxEntry | None:
        record = self._journal.find(entry.wanted.intent)
        if entry.state is not OutboxState.FAILED or record is None:
            return entry
        mined = record.block_number is not None
        reason = self._chain.revert_reason(record.tx_hash) if mined else _DISPLACED
        with self._store.transaction() as db:
            outbox.explain(db, entry.wanted.intent, reason)
            return outbox.find(db, entry.wanted.intent)

    def _count(self, record: TxRecord) -> None:
        if self._metrics is not None:
            self._metrics.count("tx_sent_total", state=record.state.value)

    def _followed(self) -> list[OutboxEntry]:
        followed = list[OutboxEntry]()
        with self._store.reading() as db:
            is_behind, depth = outbox.is_behind(db), outbox.depth(db)
        if is_behind:
            # Only now: mostly none has moved, and others want to write.
            with self._store.transaction() as db:
                followed, depth = outbox.follow_transactions(db), outbox.depth(db)
        if self._metrics is not None:
            self._metrics.set("outbox_pending", depth.waiting + depth.unconfirmed)
        return followed

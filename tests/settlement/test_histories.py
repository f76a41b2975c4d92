"""Whatever a session's history and its reorganisations, its jobs stand where its events put them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Receipt
from marketplace.protocol.phases import JobPhase
from marketplace.registry import step as registry
from marketplace.settlement import step as settlement
from marketplace.store import receipts
from marketplace.store.engine import Store
from marketplace.store.events import EventFact
from marketplace.store.tables import JobRow, ReceiptRow, SessionRow
from tests.flow.gateway import DOMAIN
from tests.keeper.market import plant_job
from tests.keeper.stores import sqlite_store
from tests.registry.histories import event, node_added, opened, session_id

SESSION = session_id(1)
SEQS = range(1, 9)
OPENED = opened(1, 1, 2, buyer="0xb")
LONG_AFTER_MS = 10**9


def receipt(seq: int) -> Receipt:
    return Receipt(
        order_hash=seq.to_bytes(32, "big"),
        response_hash=bytes(32),
        exec_hash=bytes(32),
        units_in=1,
        units_out=1,
        amount_atoms=1,
        started_at_ms=1,
        finished_at_ms=1,
        energy_millijoules=0,
        status=1,
    )


def digest(seq: int) -> str:
    return to_hex(receipt(seq).digest(DOMAIN))


def plant(store: Store) -> list[str]:
    """One delivered job at every seq."""
    jobs = [plant_job(store, SESSION, seq, JobPhase.DELIVERED) for seq in SEQS]
    with store.transaction() as tx:
        for row in receipts.of_session(tx, SESSION):
            found = tx.get(ReceiptRow, row.order_hash)
            assert found is not None
            found.message = receipt(row.seq).encode()
    return jobs


def take(store: Store, events: list[EventFact], cursor: int, rollback_to: int | None = None) -> None:
    with store.transaction() as tx:
        for told in registry.take_in(tx, events, cursor=cursor, rollback_to=rollback_to).standings:
            settlement.on_settled(DOMAIN, tx, told.session_id, told.after_seq)


def sweep(store: Store) -> None:
    with store.transaction() as tx:
        settlement.refund_unpayable(tx, LONG_AFTER_MS, grace_seconds=0)


def standing(store: Store, jobs: list[str]) -> list[tuple[str, str | None, str | None]]:
    """Phase, transaction and, of what was refunded, why; a job that waits may be acknowledged or not."""
    with store.reading() as tx:
        rows = [tx.get(JobRow, job_id) for job_id in jobs]
    return [
        (
            "waits" if row.phase in (JobPhase.DELIVERED, JobPhase.ACKNOWLEDGED) else row.phase,
            row.settled_tx,
            row.end_reason if row.phase == JobPhase.REFUNDED else None,
        )
        for row in rows
        if row is not None
    ]


def claimed_atoms(store: Store) -> int:
    with store.reading() as tx:
        row = tx.get(SessionRow, SESSION)
        assert row is not None
        return row.claimed_atoms


@dataclass
class History:
    """What the contracts could tell of one session, at random, a block an event; every job costs an atom."""

    random: random.Random
    events: list[EventFact] = field(
        default_factory=lambda: [node_added(), event("Deposited", 1, 1, buyer="0xb", amount=100), OPENED]
    )
    fork: int = 0

    @property
    def head(self) -> int:
        return self.events[-1].block_number

    @property
    def claimed_atoms(self) -> int:
        _, _, pending, held, _ = self._state()
        return len(pending) + len(held)

    def branch(self, fork: int) -> int:
        """Forgets some of the newest blocks; gives the last one left."""
        at = self.random.randrange(max(1, self.head - 5), self.head + 1)
        self.events = [made for made in self.events if made.block_number <= at]
        self.fork = fork
        return at

    def grow(self) -> None:
        paid, through, pending, held, last = self._state()
        moves = ["claim"] if not pending and through < 8 else []
        moves += ["hold", "final"] if pending else []
        moves += ["resolve"] * 2 if held else []
        moves += ["voucher"] if through < 8 and self.random.random() < 0.3 else []
        if not moves:
            return
        move = self.random.choice(moves)
        if move == "claim":
            seqs = sorted(self.random.sample(range(through + 1, 9), self.random.randrange(1, 9 - through)))
            what = {"throughSeq": seqs[-1], "receiptHashes": [digest(seq) for seq in seqs]}
            self._add("Claimed", amount=len(seqs), finalAt=9, **what)
        elif move == "hold":
            self._add("ClaimHeld", receiptHash=self.random.choice(sorted(pending)), amount=1)
            if len(pending) == 1:
                self._add("ClaimFinalised", same_block=True, throughSeq=last, amount=0, paid=paid)
        elif move == "final":
            self._add("ClaimFinalised", throughSeq=last, amount=len(pending), paid=paid + len(pending))
        elif move == "resolve":
            chosen = self.random.choice(sorted(held))
            is_paid = self.random.random() < 0.5
            self._add("ClaimResolved", receiptHash=chosen, amount=1, isPaid=is_paid)
        else:
            seq = self.random.randrange(max(through + 1, last if pending else 0), 9)
            if pending or held:
                self._add("ClaimReplaced", amount=len(pending) + len(held))
            self._add("VoucherSettled", same_block=bool(pending or held), throughSeq=seq, paid=seq)

    def _state(self) -> tuple[int, int, set[str], set[str], int]:
        paid, through, pending, held, last = 0, 0, set[str](), set[str](), 0
        for made in self.events:
            args = made.args
            if made.name == "Claimed":
                pending, last = set(args["receiptHashes"]), args["throughSeq"]
            elif made.name == "ClaimHeld":
                pending.discard(args["receiptHash"])
                held.add(args["receiptHash"])
            elif made.name == "ClaimResolved":
                held.discard(args["receiptHash"])
                paid += args["isPaid"]
            elif made.name == "ClaimReplaced":
                pending, held = set(), set()
            elif made.name in ("VoucherSettled", "ClaimFinalised"):
                paid, through, pending = args["paid"], args["throughSeq"], set()
        return paid, through, pending, held, last

    def _add(self, name: str, *, same_block: bool = False, **args: Any) -> None:
        block, index = (self.head, 1) if same_block else (self.head + 1, 0)
        tx = self.random.randrange(10**9)
        self.events.append(event(name, block, index, fork=self.fork, tx=tx, sessionId=SESSION, **args))


@pytest.mark.parametrize("seed", range(4))
def test_after_any_history_and_reorganisation_jobs_stand_as_if_told_at_once(
    store: Store, tmp_path: Path, seed: int
) -> None:
    chain, cursor, jobs = History(random.Random(seed)), 0, plant(store)  # noqa: S311
    for turn in range(1, 10):
        rollback_to = None
        if cursor and chain.random.random() < 0.4:
            rollback_to = cursor = chain.branch(turn)
        for _ in range(chain.random.randrange(1, 4)):
            chain.grow()
        take(store, [made for made in chain.events if made.block_number > cursor - 2], cursor, rollback_to)
        sweep(store)
        cursor = chain.head
        fresh = sqlite_store(tmp_path, f"fresh-{turn}")
        assert plant(fresh) == jobs
        take(fresh, chain.events, 0)
        sweep(fresh)
        assert standing(store, jobs) == standing(fresh, jobs)
        assert claimed_atoms(store) == claimed_atoms(fresh) == chain.claimed_atoms
        fresh.close()

"""Claims and the court's decisions on a real chain, as the follower takes them in."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from marketplace.client.bundle import Bundle
from marketplace.client.spending import OwnSessions
from marketplace.keeper.follow import Follower
from marketplace.keeper.reconcile import Reconciler
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.phases import JobPhase
from marketplace.settlement import step as settlement
from marketplace.store import projection
from marketplace.store.engine import Store
from marketplace.store.tables import JobRow, ReceiptRow
from tests.client.courtroom import BUYER, OWNER, PRICE_ATOMS, Courtroom
from tests.hardhat import Chain
from tests.keeper.market import plant_job
from tests.keeper.stores import sqlite_store

pytestmark = pytest.mark.chain


class Watched:
    """A courtroom and what a gateway makes of it; its jobs are delivered, and no voucher comes."""

    def __init__(self, chain: Chain, store: Store) -> None:
        self.room, self.store = Courtroom(chain), store
        settled = functools.partial(settlement.on_settled, chain.deployment.domain)
        self.follower = Follower(chain.client, store, settled)
        self.reconciler = Reconciler(chain.client, store, self.follower.read_anew, settled)
        self.jobs: list[str] = []

    @property
    def session_id(self) -> str:
        return to_hex(self.room.session_id)

    def deliver(self, seq: int) -> Bundle:
        bundle = self.room.bundle(seq)
        self.jobs.append(plant_job(self.store, self.session_id, seq, JobPhase.DELIVERED))
        with self.store.transaction() as tx:
            row = tx.get(ReceiptRow, f"0x{seq:02x}{self.session_id[4:]}")
            assert row is not None
            row.message = bundle.receipt.encode()
        return bundle

    def pass_window(self) -> None:
        self.room.chain.node.increase_time(self.room.chain.deployment.challenge_seconds + 1)

    def pass_phase(self, case_id: bytes) -> None:
        """Waits the present phase of a case out and moves it on."""
        ends = self.room.disputes().show(case_id).view.phase_ends
        self.room.chain.node.increase_time(max(1, ends - self.room.chain.now()))
        self.room.disputes().advance(case_id)

    def phases(self) -> list[tuple[str, str | None]]:
        """Where the jobs stand, once the store is the chain to the atom."""
        self.follower.step()
        found = self.reconciler.step()
        assert (found.block_number, found.differences) == (self.room.chain.client.head().number, [])
        with self.store.reading() as tx:
            rows = [tx.get(JobRow, job_id) for job_id in self.jobs]
            return [(row.phase, row.end_reason) for row in rows if row is not None]

    def claimed_atoms(self) -> int:
        with self.store.reading() as tx:
            return int(projection.sessions(tx, {self.session_id})[self.session_id]["claimed_atoms"])


@pytest.fixture
def watched(chain: Chain, tmp_path: Path) -> Watched:
    return Watched(chain, sqlite_store(tmp_path))


WAITING, PAID = ("delivered", None), ("settled", None)
FREE, COURT = ("refunded", "unclaimed"), ("refunded", "court_refunded")


def test_claim_with_a_silent_node_a_strike_and_one_left_out_ends_job_by_job(watched: Watched) -> None:
    room = watched.room
    silent, twice, _, good = (watched.deliver(seq) for seq in (1, 2, 3, 4))
    room.claim(silent, twice, good)
    assert watched.phases() == [WAITING] * 4
    assert watched.claimed_atoms() == 3 * PRICE_ATOMS
    court = room.disputes()
    court.demand(silent)
    court.prove_two_receipts(twice, room.again(twice))
    assert watched.phases() == [WAITING, COURT, WAITING, WAITING]
    watched.pass_phase(court.case_id(silent))
    assert watched.phases() == [COURT, COURT, WAITING, WAITING]
    watched.pass_window()
    OwnSessions(room.wallet(BUYER)).finalise(room.terms)
    assert watched.phases() == [COURT, COURT, FREE, PAID]
    assert watched.claimed_atoms() == 0
    with watched.store.reading() as tx:
        before = [tx.get(JobRow, job_id) for job_id in watched.jobs]
    watched.follower.read_anew()
    with watched.store.reading() as tx:
        assert [tx.get(JobRow, job_id) for job_id in watched.jobs] == before
    watched.follower.follow_anew()
    assert watched.phases() == [COURT, COURT, FREE, PAID]


def test_claim_outlives_its_session_and_what_the_node_answered_for_is_paid(watched: Watched) -> None:
    room = watched.room
    disputed, good = watched.deliver(1), watched.deliver(2)
    room.claim(disputed, good)
    court = room.disputes()
    court.demand(disputed)
    room.disputes(OWNER).answer(court.case_id(disputed), b"sealed")
    room.chain.node.increase_time(3_600 + room.chain.deployment.grace_seconds)
    own = OwnSessions(room.wallet(BUYER))
    own.expire(room.terms)
    assert watched.phases() == [WAITING] * 2
    # The escrow holds all of it for the claim; `phases` has compared its balance with what is owed.
    assert watched.claimed_atoms() == 2 * PRICE_ATOMS
    own.finalise(room.terms)
    assert watched.phases() == [WAITING, PAID]
    watched.pass_phase(court.case_id(disputed))
    assert watched.phases() == [PAID, PAID]
    assert watched.claimed_atoms() == 0

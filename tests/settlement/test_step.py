"""What the chain has paid, and what it never will."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from marketplace.funding import step as funding
from marketplace.keeper.clockwork import Clockwork
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open, Receipt
from marketplace.registry import step as registry
from marketplace.settlement import step as settlement
from marketplace.store import jobs, outbox, receipts, sessions, vouchers
from marketplace.store.tables import SessionTermsRow
from tests.flow.gateway import BUYER, DOMAIN, NOW_AT, Gateway, gateway
from tests.flow.node import bearer, chat_body, funded
from tests.registry.histories import event


async def done_jobs(g, secret, count):
    answers = [
        await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        for _ in range(count)
    ]
    return [answer.json()["job_id"] for answer in answers]


@dataclass
class Chain:
    """The events of one session, a block each, taken in as the follower would."""

    gateway: Gateway
    session_id: str
    head: int = 1

    def __post_init__(self):
        row = self.gateway.session(self.session_id)
        opened = {name: getattr(row, name) for name in ("buyer", "key")}
        opened |= {"nodeId": row.node_id, "amount": row.deposited_atoms, "expiresAt": row.expires_at}
        self._take([self._event("SessionOpened", "0x00", keyEpoch=row.key_epoch, **opened)])

    def add(self, name, tx_hash, **args):
        self.head += 1
        self._take([self._event(name, tx_hash, **args)])

    def undo(self, blocks=1):
        """A reorganisation takes the newest blocks back."""
        self.head -= blocks
        self._take([], rollback_to=self.head)

    def tell(self):
        with self.gateway.store.transaction() as tx:
            settlement.on_settled(DOMAIN, tx, self.session_id, 0)

    def _event(self, name, tx_hash, **args):
        made = event(name, self.head, sessionId=self.session_id, **args)
        return replace(made, tx_hash=tx_hash)

    def _take(self, events, rollback_to=None):
        with self.gateway.store.transaction() as tx:
            taken = registry.take_in(tx, events, cursor=self.head - 1, rollback_to=rollback_to)
            for standing in taken.standings:
                settlement.on_settled(DOMAIN, tx, standing.session_id, standing.after_seq)


def phases(g, ids):
    with g.store.reading() as tx:
        return [(jobs.find(tx, job_id).phase, jobs.find(tx, job_id).settled_tx) for job_id in ids]


async def test_settlement_marks_exactly_the_paid_prefix_and_a_reorg_takes_it_back(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        ids = await done_jobs(g, secret, 3)
        assert phases(g, ids) == [("acknowledged", None)] * 3

        chain = Chain(g, opened[1])
        one = [("settled", "0xaa"), ("acknowledged", None), ("acknowledged", None)]
        chain.add("VoucherSettled", "0xaa", throughSeq=1, paid=19)
        assert phases(g, ids) == one
        chain.tell()
        assert phases(g, ids) == one
        chain.add("VoucherSettled", "0xbb", throughSeq=3, paid=57)
        assert phases(g, ids) == [("settled", "0xaa"), ("settled", "0xbb"), ("settled", "0xbb")]
        chain.undo()
        assert phases(g, ids) == one
        chain.undo()
        assert phases(g, ids) == [("acknowledged", None)] * 3
        chain.add("VoucherSettled", "0xcc", throughSeq=3, paid=57)
        assert phases(g, ids) == [("settled", "0xcc")] * 3


async def test_jobs_of_a_session_that_closed_unpaid_are_refunded(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        ids = await done_jobs(g, secret, 2)
        Chain(g, opened[1]).add("VoucherSettled", "0xaa", throughSeq=1, paid=19)
        g.set_session(opened[1], through_seq=1, closed=True)
        await Clockwork(g.market).sweep()
        assert [phase for phase, _ in phases(g, ids)] == ["settled", "refunded"]
        job = (await g.http.get(f"/v1/jobs/{ids[1]}")).json()
        assert (job["charged"], job["end_reason"]) == (False, "session_expired")
        assert job["result"]["text"] == "Hello world"
        await Clockwork(g.market).sweep()
        assert [phase for phase, _ in phases(g, ids)] == ["settled", "refunded"]


def digests(g, session_id):
    with g.store.reading() as tx:
        rows = receipts.of_session(tx, session_id)
        return [to_hex(Receipt.decode(row.message).digest(DOMAIN)) for row in rows]


async def outcomes(g, ids):
    found = [(await g.http.get(f"/v1/jobs/{job_id}")).json() for job_id in ids]
    return [(job["phase"], job["end_reason"], job["cost_atoms"], job["settled_tx"]) for job in found]


async def sweep_long_after(g):
    g.clock.now_ms += (3600 + 900 + 601) * 1000
    await Clockwork(g.market).sweep()


DELIVERED = ("acknowledged", "done", "19", None)
LEFT_OUT = ("refunded", "unclaimed", "0", None)
TOO_LATE = ("refunded", "session_expired", "0", None)


def settled(tx_hash):
    return ("settled", "done", "19", tx_hash)


async def test_claimed_jobs_wait_for_their_claim_and_those_it_left_out_are_free(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        ids = await done_jobs(g, secret, 4)
        first, _, third, _ = digests(g, opened[1])
        chain = Chain(g, opened[1])
        chain.add("Claimed", "0xaa", throughSeq=3, amount=38, finalAt=9, receiptHashes=[first, third])
        chain.add("SessionClosed", "0xab", paid=0, returned=g.session(opened[1]).deposited_atoms - 38)
        await sweep_long_after(g)
        assert await outcomes(g, ids) == [DELIVERED] * 4
        with g.store.reading() as tx:
            assert sessions.find(tx, opened[1]).claimed_atoms == 38
        chain.add("ClaimFinalised", "0xac", throughSeq=3, amount=38, paid=38)
        assert await outcomes(g, ids) == [settled("0xac"), LEFT_OUT, settled("0xac"), DELIVERED]
        bundle = (await g.http.get(f"/v1/receipts/{await receipt_id(g, ids[1])}")).json()
        assert bundle["settlement"] is None
        bundle = (await g.http.get(f"/v1/receipts/{await receipt_id(g, ids[2])}")).json()
        assert bundle["settlement"] == {"tx_hash": "0xac", "block": chain.head}
        await Clockwork(g.market).sweep()
        decided = [settled("0xac"), LEFT_OUT, settled("0xac"), TOO_LATE]
        assert await outcomes(g, ids) == decided
        chain.tell()
        assert await outcomes(g, ids) == decided
        # The blocks of the finalisation go, and come back by another transaction.
        chain.undo()
        assert await outcomes(g, ids) == [DELIVERED] * 4
        await Clockwork(g.market).sweep()
        assert await outcomes(g, ids) == [DELIVERED] * 4
        chain.add("ClaimFinalised", "0xad", throughSeq=3, amount=38, paid=38)
        await Clockwork(g.market).sweep()
        assert await outcomes(g, ids) == [settled("0xad"), LEFT_OUT, settled("0xad"), TOO_LATE]


@pytest.mark.parametrize(
    ("is_paid", "expected"),
    [(True, settled("0xad")), (False, ("refunded", "court_refunded", "0", None))],
)
async def test_held_job_waits_for_the_court_and_ends_as_it_decides(tmp_path, is_paid, expected):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        ids = await done_jobs(g, secret, 2)
        both = digests(g, opened[1])
        chain = Chain(g, opened[1])
        chain.add("Claimed", "0xaa", throughSeq=2, amount=38, finalAt=9, receiptHashes=both)
        chain.add("ClaimHeld", "0xab", receiptHash=both[0], amount=19)
        chain.add("ClaimFinalised", "0xac", throughSeq=2, amount=19, paid=19)
        await sweep_long_after(g)
        assert await outcomes(g, ids) == [DELIVERED, settled("0xac")]
        chain.add("ClaimResolved", "0xad", receiptHash=both[0], amount=19, isPaid=is_paid)
        assert await outcomes(g, ids) == [expected, settled("0xac")]
        chain.undo()
        assert await outcomes(g, ids) == [DELIVERED, settled("0xac")]
        chain.undo(3)
        assert await outcomes(g, ids) == [DELIVERED] * 2


async def test_session_with_an_order_taken_back_pays_by_claims_only(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        await done_jobs(g, secret, 2)
        both = digests(g, opened[1])
        chain = Chain(g, opened[1])
        chain.add("Claimed", "0xaa", throughSeq=2, amount=38, finalAt=9, receiptHashes=both)
        chain.add("ClaimHeld", "0xab", receiptHash=both[0], amount=19)

        def voucher():
            """What would be signed if nothing had been so far."""
            with g.store.transaction() as tx:
                tx.delete(vouchers.find(tx, opened[1]))
                key = funding.held_key(tx, g.market.vault, g.session(opened[1]).key)
                made = settlement.acknowledge(tx, opened[1], key, DOMAIN, g.clock.now_ms)
                tx.rollback()
            return made

        assert voucher().amount_atoms == 38
        chain.add("ClaimResolved", "0xac", receiptHash=both[0], amount=19, isPaid=False)
        assert voucher() is None, "it would charge what the court gave back"
        refused = await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        assert refused.status_code == 402
        chain.undo()
        assert voucher().amount_atoms == 38


async def test_jobs_refunded_before_their_claim_was_seen_wait_for_it_all_the_same(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        ids = await done_jobs(g, secret, 1)
        chain = Chain(g, opened[1])
        await sweep_long_after(g)
        assert await outcomes(g, ids) == [TOO_LATE]
        what = {"receiptHashes": digests(g, opened[1]), "amount": 19, "finalAt": 9}
        chain.add("Claimed", "0xaa", throughSeq=1, **what)
        assert await outcomes(g, ids) == [DELIVERED]
        chain.add("ClaimFinalised", "0xab", throughSeq=1, amount=19, paid=19)
        assert await outcomes(g, ids) == [settled("0xab")]


async def receipt_id(g, job_id):
    with g.store.reading() as tx:
        return receipts.find(tx, jobs.find(tx, job_id).order_hash).receipt_id


async def test_rest_of_an_expired_session_is_asked_back_once(tmp_path):
    async with gateway(tmp_path) as g:
        terms = Open(
            buyer=BUYER.address,
            key=BUYER.address,
            node_id=1,
            amount_atoms=10,
            open_before=NOW_AT,
            expires_at=NOW_AT - 901,
            salt=bytes(32),
        )
        session_id = g.put_session(BUYER.address, 1, expires_at=NOW_AT - 901)
        with g.store.transaction() as tx:
            row = SessionTermsRow(
                session_id=session_id,
                buyer=BUYER.address,
                key=BUYER.address,
                message=terms.encode(),
                signature=b"",
                expires_at=NOW_AT - 901,
                asked_at_ms=0,
            )
            sessions.keep_terms(tx, row)
        for _ in range(2):
            await Clockwork(g.market).sweep()
            with g.store.reading() as tx:
                (entry,) = outbox.waiting(tx, limit=10)
            assert entry.wanted.intent == f"expire:{session_id}"


async def test_session_inside_its_grace_is_left_alone(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, _opened):
        ids = await done_jobs(g, secret, 1)
        g.clock.now_ms += (3600 + 900) * 1000
        await Clockwork(g.market).sweep()
        assert phases(g, ids) == [("acknowledged", None)]
        with g.store.reading() as tx:
            assert outbox.waiting(tx, limit=10) == []

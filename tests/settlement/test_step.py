"""What the chain has paid, and what it never will."""

from __future__ import annotations

from marketplace.keeper.clockwork import Clockwork
from marketplace.protocol.messages import Open
from marketplace.settlement import step
from marketplace.store import jobs, outbox, sessions
from marketplace.store.tables import SessionTermsRow
from tests.flow.gateway import BUYER, NOW_AT, gateway
from tests.flow.node import bearer, chat_body, funded


async def done_jobs(g, secret, count):
    answers = [
        await g.http.post("/v1/chat/completions", json=chat_body(), headers=bearer(secret))
        for _ in range(count)
    ]
    return [answer.json()["job_id"] for answer in answers]


def phases(g, ids):
    with g.store.reading() as tx:
        return [(jobs.find(tx, job_id).phase, jobs.find(tx, job_id).settled_tx) for job_id in ids]


async def test_settlement_marks_exactly_the_paid_prefix_and_a_reorg_takes_it_back(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        ids = await done_jobs(g, secret, 3)
        assert phases(g, ids) == [("acknowledged", None)] * 3

        def tell(through_seq, tx_hash):
            with g.store.transaction() as tx:
                step.on_settled(tx, opened[1], through_seq, tx_hash)
            return phases(g, ids)

        one = [("settled", "0xaa"), ("acknowledged", None), ("acknowledged", None)]
        assert tell(1, "0xaa") == one
        assert tell(1, "0xaa") == one
        assert tell(3, "0xbb") == [("settled", "0xaa"), ("settled", "0xbb"), ("settled", "0xbb")]
        assert tell(1, None) == one
        assert tell(0, None) == [("acknowledged", None)] * 3
        assert tell(3, "0xcc") == [("settled", "0xcc")] * 3


async def test_jobs_of_a_session_that_closed_unpaid_are_refunded(tmp_path):
    async with gateway(tmp_path) as g, funded(g, 1) as (secret, _, opened):
        ids = await done_jobs(g, secret, 2)
        with g.store.transaction() as tx:
            step.on_settled(tx, opened[1], 1, "0xaa")
        g.set_session(opened[1], through_seq=1, closed=True)
        await Clockwork(g.market).sweep()
        assert [phase for phase, _ in phases(g, ids)] == ["settled", "refunded"]
        job = (await g.http.get(f"/v1/jobs/{ids[1]}")).json()
        assert (job["charged"], job["end_reason"]) == (False, "session_expired")
        assert job["result"]["text"] == "Hello world"
        await Clockwork(g.market).sweep()
        assert [phase for phase, _ in phases(g, ids)] == ["settled", "refunded"]


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

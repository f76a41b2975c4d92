from __future__ import annotations

import pytest

from marketplace.protocol.errors import Broken, LostRace
from marketplace.protocol.phases import JobPhase
from marketplace.store import jobs
from marketplace.store.jobs import OrderState, Place
from marketplace.store.tables import JobRow, OrderRow


def job_row(job_id="job_a", **changes):
    values = {
        "job_id": job_id,
        "key": "0xk",
        "held": True,
        "task": "chat",
        "model_id": "0xm",
        "model_name": "m",
        "payload": b"",
        "trace_id": "t",
        "phase": JobPhase.LEASED.value,
        "created_at_ms": 1,
        "deadline_ms": 100,
    }
    return JobRow(**(values | changes))


def order_row(order_hash, seq=1, **changes):
    values = {
        "order_hash": order_hash,
        "job_id": "job_a",
        "attempt": 1,
        "session_id": "0xs",
        "seq": seq,
        "node_id": 1,
        "signer": "0x",
        "offer_hash": "0x",
        "salt": b"",
        "message": b"",
        "signature": b"",
        "max_amount_atoms": 1,
        "issued_at_ms": 0,
        "lease_until_ms": 10,
    }
    return OrderRow(**(values | changes))


@pytest.fixture
def filled(store):
    with store.transaction() as tx:
        jobs.add(tx, job_row())
        for seq in range(1, 5):
            jobs.add_order(tx, order_row(f"0x{seq}", seq))
    return store


def test_move_is_guarded_by_the_version(filled):
    with filled.transaction() as tx:
        stale = jobs.find(tx, "job_a")
    with filled.transaction() as tx:
        fresh = jobs.find(tx, "job_a")
        jobs.move(tx, fresh, JobPhase.RUNNING)
        assert (fresh.phase, fresh.version) == ("running", 1)
    with filled.transaction() as tx:
        with pytest.raises(LostRace):
            jobs.move(tx, stale, JobPhase.FAILED)
        assert jobs.find(tx, "job_a").phase == "running"


def test_move_outside_the_table_is_our_defect(filled):
    with filled.transaction() as tx, pytest.raises(Broken):
        jobs.move(tx, jobs.find(tx, "job_a"), JobPhase.SETTLED)


def test_order_ends_once(filled):
    with filled.transaction() as tx:
        jobs.end_order(tx, "0x1", OrderState.OPEN, OrderState.LAPSED)
        with pytest.raises(LostRace):
            jobs.end_order(tx, "0x1", OrderState.OPEN, OrderState.REFUSED)


def test_seq_of_a_session_is_taken_once(filled):
    with pytest.raises(LostRace), filled.transaction() as tx:
        jobs.add_order(tx, order_row("0xother", 1))
    with filled.reading() as tx:
        assert jobs.order(tx, "0xother") is None
        assert jobs.order_at(tx, "0xs", 1).order_hash == "0x1"


def test_idempotency_key_is_taken_once_and_given_back(store):
    with store.transaction() as tx:
        jobs.add(tx, job_row(idempotency="k"))
    with pytest.raises(LostRace), store.transaction() as tx:
        jobs.add(tx, job_row("job_b", idempotency="k"))
    with store.transaction() as tx:
        jobs.forget_idempotency(tx, "job_a")
    with store.transaction() as tx:
        jobs.add(tx, job_row("job_b", idempotency="k"))
        assert jobs.find_by_idempotency(tx, "k").job_id == "job_b"


def test_renewal_reaches_only_open_orders_of_the_node(filled):
    with filled.transaction() as tx:
        jobs.end_order(tx, "0x2", OrderState.OPEN, OrderState.LAPSED)
        assert sorted(jobs.renew(tx, 1, ["0x1", "0x2", "0xnone"], 99)) == ["0x1"]
        assert jobs.renew(tx, 2, ["0x1"], 199) == []
    with filled.reading() as tx:
        assert jobs.lapsed(tx, 50, 10) == ["0x3", "0x4"]
        assert jobs.order(tx, "0x1").lease_until_ms == 99


def test_grace_only_ever_extends(filled):
    with filled.transaction() as tx:
        jobs.renew(tx, 1, ["0x1"], 99)
        jobs.grace(tx, 50)
    with filled.reading() as tx:
        assert [jobs.order(tx, f"0x{n}").lease_until_ms for n in (1, 2)] == [99, 50]


def test_places_say_which_seqs_have_ended(filled):
    with filled.transaction() as tx:
        jobs.end_order(tx, "0x3", OrderState.OPEN, OrderState.REFUSED)
        assert jobs.places(tx, "0xs", 1) == [Place(2, False), Place(3, True), Place(4, False)]


def test_overdue_and_waiting_jobs_are_found(store):
    with store.transaction() as tx:
        jobs.add(tx, job_row("job_a", deadline_ms=10))
        jobs.add(tx, job_row("job_b", deadline_ms=10, phase="delivered"))
        jobs.add(tx, job_row("job_c", deadline_ms=99, phase="ordered"))
        jobs.add(tx, job_row("job_d", deadline_ms=99, phase="ordered", held=False))
    with store.reading() as tx:
        assert jobs.overdue(tx, 11, 10) == ["job_a"]
        assert jobs.waiting(tx, 10) == ["job_c"]


def test_pages_go_from_newest_to_oldest_without_gaps(store):
    with store.transaction() as tx:
        for name, at in (("a", 1), ("b", 2), ("c", 2), ("d", 3)):
            jobs.add(tx, job_row(f"job_{name}", created_at_ms=at))
    with store.reading() as tx:
        first = [job.job_id for job in jobs.of_key(tx, "0xk", 2, None)]
        rest = [job.job_id for job in jobs.of_key(tx, "0xk", 9, first[-1])]
    assert first + rest == ["job_d", "job_b", "job_c", "job_a"]

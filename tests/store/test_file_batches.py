"""Batches of buyers' calls in the store."""

from __future__ import annotations

import pytest

from marketplace.openai.batches import BatchStatus
from marketplace.protocol.errors import Broken, LostRace
from marketplace.protocol.phases import JobPhase
from marketplace.store import batches, jobs
from marketplace.store.batches import LineState, Spent
from marketplace.store.tables import BatchLineRow, BatchRow
from tests.store.test_jobs import job_row


def batch_row(batch_id="batch_a", **changes):
    values = {
        "batch_id": batch_id,
        "key": "0xk",
        "endpoint": "/v1/embeddings",
        "input_file_id": "file-in",
        "output_file_id": "file-out",
        "error_file_id": "file-err",
        "labels": "{}",
        "trace_id": "t",
        "fingerprint": "f",
        "status": BatchStatus.IN_PROGRESS.value,
        "total": 3,
        "ceiling_atoms": 30,
        "created_at_ms": 1,
        "expires_at_ms": 100,
        "keep_ms": 100,
    }
    return BatchRow(**(values | changes))


def line_row(number, batch_id="batch_a", **changes):
    values = {"batch_id": batch_id, "number": number, "custom_id": f"c{number}", "model": "m"}
    state = {"state": LineState.WAITING.value, "session_id": "0xs", "ceiling_atoms": 10}
    return BatchLineRow(**(values | state | changes))


@pytest.fixture
def filled(store):
    with store.transaction() as tx:
        batches.add(tx, batch_row(), [line_row(number) for number in (1, 2, 3)])
    return store


def test_line_is_placed_once_and_ends_once(filled):
    with filled.transaction() as tx:
        jobs.add(tx, job_row("job_a"))
        line = batches.waiting(tx, "batch_a", 1)[0]
        batches.place(tx, line, "job_a")
        with pytest.raises(LostRace):
            batches.place(tx, line, "job_b")
    with filled.transaction() as tx:
        ((line, job),) = batches.placed(tx, "batch_a")
        assert (line.number, job.job_id, batches.in_flight(tx)) == (1, "job_a", {"batch_a": 1})
        batches.end(
            tx, line, LineState.DONE, Spent(units_in=2, units_out=3, cost_atoms=5, energy_millijoules=7)
        )
        with pytest.raises(LostRace):
            batches.end(tx, line, LineState.DONE)
    with filled.reading() as tx:
        row = batches.get(tx, "batch_a")
        assert (row.completed, row.failed, row.cost_atoms, row.energy_millijoules) == (1, 0, 5, 7)
        assert (row.units_in, row.units_out, batches.in_flight(tx)) == (2, 3, {})


def test_line_whose_job_failed_waits_again(filled):
    with filled.transaction() as tx:
        jobs.add(tx, job_row("job_a"))
        batches.place(tx, batches.waiting(tx, "batch_a", 1)[0], "job_a")
    with filled.transaction() as tx:
        ((line, _),) = batches.placed(tx, "batch_a")
        batches.put_back(tx, line, 1)
    with filled.reading() as tx:
        line = batches.waiting(tx, "batch_a", 1)[0]
        assert (line.number, line.job_id, line.tries) == (1, None, 1)


def test_waiting_lines_come_in_order_without_blocked_models(filled):
    with filled.transaction() as tx:
        tx.add(line_row(4, model="other"))
        tx.flush()
        assert [line.number for line in batches.waiting(tx, "batch_a", 2)] == [1, 2]
        assert [line.number for line in batches.waiting(tx, "batch_a", 9, without=["m"])] == [4]


def test_batch_is_open_while_a_line_is(filled):
    with filled.transaction() as tx:
        for line in batches.waiting(tx, "batch_a", 9):
            assert batches.has_open(tx, "batch_a")
            batches.end(tx, line, LineState.FAILED)
        assert not batches.has_open(tx, "batch_a")
        assert batches.get(tx, "batch_a").failed == 3


def test_move_is_guarded_by_the_version_and_the_table(filled):
    with filled.transaction() as tx:
        stale = batches.get(tx, "batch_a")
        tx.expunge(stale)
        fresh = batches.get(tx, "batch_a")
        batches.move(tx, fresh, BatchStatus.CANCELLING, cancelling_at_ms=9)
        assert (fresh.status, fresh.version, fresh.cancelling_at_ms) == ("cancelling", 1, 9)
        with pytest.raises(LostRace):
            batches.move(tx, stale, BatchStatus.FINALIZING)
        with pytest.raises(Broken):
            batches.move(tx, fresh, BatchStatus.COMPLETED)


def test_promised_is_what_waiting_lines_may_cost_by_session(filled):
    with filled.transaction() as tx:
        batches.add(tx, batch_row("batch_b"), [line_row(1, "batch_b", session_id="0xt", ceiling_atoms=7)])
        batches.add(tx, batch_row("batch_c", key="0xother"), [line_row(1, "batch_c")])
        batches.end(tx, batches.waiting(tx, "batch_a", 1)[0], LineState.FAILED)
        assert batches.promised(tx, "0xk") == {"0xs": 20, "0xt": 7}


def test_same_name_is_kept_once(store):
    with store.transaction() as tx:
        batches.add(tx, batch_row(idempotency="n"), [])
    with pytest.raises(LostRace), store.transaction() as tx:
        batches.add(tx, batch_row("batch_b", idempotency="n"), [])
    with store.reading() as tx:
        assert batches.find_by_idempotency(tx, "n").batch_id == "batch_a"
        assert [row.batch_id for row in batches.unfinished(tx)] == ["batch_a"]


def test_only_batches_that_are_over_let_go_of_their_file(filled):
    with filled.transaction() as tx:
        assert batches.reading(tx, "file-in").batch_id == "batch_a"
        row = batches.get(tx, "batch_a")
        batches.move(tx, row, BatchStatus.FINALIZING)
        assert batches.reading(tx, "file-in") is not None
        batches.move(tx, row, BatchStatus.COMPLETED)
        assert batches.reading(tx, "file-in") is None
        assert batches.unfinished(tx) == []


def test_job_of_a_line_is_found_by_its_fingerprint(store):
    with store.transaction() as tx:
        for job_id, at_ms in (("job_a", 1), ("job_b", 2)):
            jobs.add(tx, job_row(job_id, fingerprint="f", created_at_ms=at_ms, phase=JobPhase.FAILED.value))
        assert batches.job_of(tx, "0xk", "f").job_id == "job_b"
        assert batches.job_of(tx, "0xother", "f") is None

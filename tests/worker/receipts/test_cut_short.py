"""Jobs that are cut short, handed over, or whose chunks cannot be stored."""

import threading
from typing import Any

import pytest

from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import ReceiptStatus
from marketplace.protocol.payloads import finish_chunk, seed_of
from tests.worker.receipts.test_once import LEASE_MS, executor, finish_of, signed
from tests.worker.support import Bench, TinyEngine, TinyRunning, chat_payload
from worker.execute import Executor
from worker.inference.engine import Chunk, Emit, EngineJob, Outcome, Sink
from worker.ledger import NewChunk, OrderState
from worker.ledger.jobs import Page
from worker.metering import Reading
from worker.receipts import ChunkSpool, Stopping


class HeldEngine(TinyEngine):
    """Takes a job at once and runs it when told, as an engine with a thread of its own may."""

    def submit(self, job: EngineJob, sink: Sink) -> TinyRunning:
        running = TinyRunning()
        self.go = lambda: sink(self.run(job, sink, running))
        return running


def test_cancelled_job_is_billed_for_the_prefix_that_was_delivered(bench: Bench) -> None:
    order_hash = bench.take()

    def wanted_no_more(index: int) -> None:
        if index == 1:
            bench.ledger.cancels.ask(order_hash, now_ms=bench.clock.ms)
            run._leases.renew()

    engine = HeldEngine(wanted_no_more)
    run = executor(bench, engine)
    run.execute(order_hash)
    engine.go()
    receipt = signed(bench, order_hash)
    bodies = [chunk.body for chunk in bench.ledger.chunks.of(order_hash)]
    assert bodies[:2] == engine.bodies(seed_of(chat_payload(), order_hash))[:2]
    assert (receipt.status, receipt.units_in, receipt.units_out) == (ReceiptStatus.CUT_SHORT, 5, 2)
    assert receipt.amount_atoms == 1_000 + 2
    assert receipt.response_hash == response_hash(b"\x0a" * 32, bodies)
    assert finish_of(bench, order_hash) == "cancelled"


def test_job_cancelled_before_its_first_token_is_free(bench: Bench) -> None:
    order_hash = bench.take()
    bench.ledger.cancels.ask(order_hash, now_ms=bench.clock.ms)
    engine = HeldEngine()
    executor(bench, engine).execute(order_hash)
    engine.go()
    receipt = signed(bench, order_hash)
    assert (receipt.status, receipt.amount_atoms) == (ReceiptStatus.FAILED, 0)
    assert finish_of(bench, order_hash) == "cancelled"


class LateEngine(TinyEngine):
    """Its time is up after so many words."""

    def run(self, job: EngineJob, emit: Emit, running: TinyRunning | None = None) -> Outcome:
        bodies = [*self.bodies(job.seed)[: self.words], finish_chunk("deadline")]
        for index, body in enumerate(bodies):
            emit(Chunk(index=index, body=body, token_ids=(index,) if index < self.words else ()))
        reading = Reading(device_microseconds=10, energy_millijoules=2, energy_method="model")
        return Outcome(finish="deadline", units_in=5, units_out=self.words, reading=reading)


@pytest.mark.parametrize(
    ("words", "status", "amount_atoms", "finish"),
    [(0, ReceiptStatus.FAILED, 0, "deadline_passed"), (1, ReceiptStatus.CUT_SHORT, 1_001, "deadline")],
    ids=["nothing delivered", "a word delivered"],
)
def test_deadline_bills_what_was_delivered_and_nothing_for_nothing(
    bench: Bench, words: int, status: ReceiptStatus, amount_atoms: int, finish: str
) -> None:
    order_hash = bench.take()
    executor(bench, LateEngine(words=words)).execute(order_hash)
    receipt = signed(bench, order_hash)
    assert (receipt.status, receipt.amount_atoms) == (status, amount_atoms)
    assert finish_of(bench, order_hash) == finish


def test_job_handed_over_goes_on_elsewhere_and_counts_no_attempt(bench: Bench) -> None:
    order_hash = bench.take()
    mine: list[Executor] = []

    def asked_to_stop(index: int) -> None:
        if index == 2:
            assert mine[0].hand_over(timeout_seconds=0) == 1

    engine = HeldEngine(asked_to_stop)
    mine.append(executor(bench, engine))
    mine[0].execute(order_hash)
    engine.go()
    held = bench.ledger.orders.get(order_hash)
    assert held is not None
    assert (held.state, held.worker, held.attempts) == (OrderState.QUEUED, "", 0)
    assert [chunk.index for chunk in bench.ledger.chunks.of(order_hash)] == [0, 1]
    again: list[int] = []
    executor(bench, TinyEngine(again.append), worker="host-infer-2-b").execute(order_hash)
    assert again == [2, 3, 4]
    assert signed(bench, order_hash).units_out == 4


def test_slot_is_free_once_the_engine_is_done_and_a_stop_still_waits_for_the_receipt(bench: Bench) -> None:
    order_hash = bench.take()
    engine = HeldEngine()
    run = executor(bench, engine)
    run._spool.start()
    run.execute(order_hash)
    assert run.running == 1
    with run._spool._write_lock:
        engine.go()
        assert run.running == 0
        assert bench.ledger.receipts.get(order_hash) is None
    assert run.hand_over(timeout_seconds=0) == 0
    assert signed(bench, order_hash).units_out == 4
    run._spool.stop()


def test_claims_go_ahead_of_the_slots_by_an_eighth_and_those_do_not_hurry(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = [bench.take(seq) for seq in range(1, 11)]
    engine = HeldEngine()
    run = executor(bench, engine)
    hurried: list[bool] = []
    take_up = run._spool.take_up

    def watched(order_hash: bytes, **how: Any) -> Any:
        hurried.append(how["hurry"])
        return take_up(order_hash, **how)

    monkeypatch.setattr(run._spool, "take_up", watched)
    for order_hash in orders[:9]:
        run.execute(order_hash)
    assert hurried == [True] * 8 + [False]
    late = threading.Thread(target=run.execute, args=(orders[9],))
    late.start()
    late.join(0.2)
    assert late.is_alive()
    engine.go()
    late.join(20)
    assert run.running == 9
    assert signed(bench, orders[8]).units_out == 4


def test_process_that_stops_takes_no_order(bench: Bench) -> None:
    order_hash = bench.take()
    run = executor(bench, TinyEngine())
    assert run.hand_over(timeout_seconds=0) == 0
    with pytest.raises(Stopping):
        run.execute(order_hash)
    held = bench.ledger.orders.get(order_hash)
    assert held is not None
    assert (held.state, held.attempts) == (OrderState.QUEUED, 0)


def test_chunks_of_all_jobs_share_one_transaction(bench: Bench) -> None:
    orders = [bench.take(seq) for seq in (1, 2, 3)]
    for order_hash in orders:
        bench.ledger.jobs.take_up(order_hash, "me", now_ms=bench.clock.ms, until_ms=bench.clock.ms + 9)
    told: list[list[bytes]] = []
    stored = threading.Event()
    spool = ChunkSpool(bench.ledger, "me", lambda hashes: told.append(list(hashes)), every_ms=0)
    with spool._write_lock:
        spool.start()
        for order_hash in orders:
            spool.put(NewChunk(order_hash=order_hash, index=0, body=b"{}", token_ids=(1,)))
        spool.then(orders[0], stored.set)
    assert stored.wait(20)
    spool.stop()
    assert told == [orders]


def test_full_disk_costs_the_jobs_of_that_moment_their_lease_and_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_hash, next_hash = bench.take(1), bench.take(2)

    def full(*_: Any) -> set[bytes]:
        raise OSError("no space left on device")

    run = executor(bench, TinyEngine())
    with monkeypatch.context() as broken:
        broken.setattr(Page, "add", full)
        run.execute(order_hash)
    assert bench.ledger.receipts.get(order_hash) is None
    run.execute(next_hash)
    assert signed(bench, next_hash).status == ReceiptStatus.DONE
    bench.clock.ms += LEASE_MS
    run.execute(order_hash)
    assert signed(bench, order_hash).status == ReceiptStatus.DONE


def test_task_that_comes_again_while_its_job_runs_here_changes_nothing(bench: Bench) -> None:
    order_hash = bench.take(lease_ms=120_000, deadline_ms=bench.clock.ms + 120_000)
    engine = HeldEngine()
    run = executor(bench, engine)
    run.execute(order_hash)
    first = engine.go
    # The worker lease has lapsed meanwhile: the keeper was late.
    bench.clock.ms += LEASE_MS + 1
    run.execute(order_hash)
    assert engine.go is first
    assert run.running == 1
    first()
    assert signed(bench, order_hash).status == ReceiptStatus.DONE
    assert run.running == 0

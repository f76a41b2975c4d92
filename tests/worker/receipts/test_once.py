"""One receipt an order, whatever is delivered twice, races, or crashes."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from marketplace.protocol.annex import Annex, exec_hash
from marketplace.protocol.errors import BadRequest, ErrorCode, LostRace
from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import Receipt, ReceiptStatus
from marketplace.protocol.payloads import seed_of
from marketplace.protocol.signing import signer_of
from tests.worker.support import DOMAIN, NODE, Bench, TinyEngine, TinyPool, chat_payload
from worker.execute import ExecuteLimits, Executor
from worker.inference.errors import EngineFailed, OutOfContext
from worker.ledger import NewChunk, OrderState
from worker.receipts import ChunkSpool, LeaseKeeper

LEASE_MS = 10_000


class Crash(BaseException):
    """The process is gone: nothing after this runs."""


def executor(
    bench: Bench,
    engine: Any,
    *,
    worker: str = "host-infer-1-a",
    announce: Callable[[bytes], None] | None = None,
) -> Executor:
    """The spool is not started: what it is given is stored and signed at once, on the caller's thread."""

    def tell(hashes: Sequence[bytes]) -> None:
        for order_hash in hashes:
            if announce is not None:
                announce(order_hash)

    return Executor(
        ledger=bench.ledger,
        desk=bench.desk,
        engines=TinyPool(engine),
        leases=LeaseKeeper(bench.ledger, worker, bench.clock, lease_ms=LEASE_MS),
        spool=ChunkSpool(bench.ledger, worker, tell),
        limits=ExecuteLimits(),
        now_ms=bench.clock,
    )


def signed(bench: Bench, order_hash: bytes) -> Receipt:
    held = bench.ledger.receipts.get(order_hash)
    assert held is not None
    receipt = Receipt.decode(held.message)
    assert signer_of(receipt, DOMAIN, held.signature) == NODE.address
    assert held.digest == receipt.digest(DOMAIN)
    return receipt


def finish_of(bench: Bench, order_hash: bytes) -> str:
    held = bench.ledger.receipts.get(order_hash)
    assert held is not None
    return Annex.model_validate_json(held.annex).finish


def test_finished_job_is_hashed_priced_and_signed(bench: Bench) -> None:
    engine, order_hash = TinyEngine(), bench.take()
    executor(bench, engine).execute(order_hash)
    receipt = signed(bench, order_hash)
    bodies = [chunk.body for chunk in bench.ledger.chunks.of(order_hash)]
    held = bench.ledger.receipts.get(order_hash)
    assert held is not None
    assert bodies == engine.bodies(seed_of(chat_payload(), order_hash))
    assert receipt.response_hash == response_hash(b"\x0a" * 32, bodies)
    assert receipt.exec_hash == exec_hash(held.annex)
    assert (receipt.units_in, receipt.units_out) == (5, 4)
    assert receipt.amount_atoms == 1_000 + 4
    assert receipt.energy_millijoules == 2
    assert receipt.status == ReceiptStatus.DONE
    assert held.chunks == len(bodies)
    order = bench.ledger.orders.get(order_hash)
    assert order is not None
    assert order.state == OrderState.RECEIPTED


def test_task_delivered_twice_signs_once_and_the_same_bytes_stay(bench: Bench) -> None:
    engine, order_hash = TinyEngine(), bench.take()
    run = executor(bench, engine)
    run.execute(order_hash)
    first = bench.ledger.receipts.get(order_hash)
    bench.clock.ms += 5_000
    run.execute(order_hash)
    executor(bench, engine, worker="host-infer-2-b").execute(order_hash)
    assert bench.ledger.receipts.get(order_hash) == first
    assert engine.runs == 1


def test_second_worker_drops_an_order_the_first_one_works_on(bench: Bench) -> None:
    order_hash = bench.take()
    other = TinyEngine()

    def meanwhile(index: int) -> None:
        if index == 2:
            executor(bench, other, worker="host-infer-2-b").execute(order_hash)

    executor(bench, TinyEngine(meanwhile)).execute(order_hash)
    assert other.runs == 0
    assert signed(bench, order_hash).status == ReceiptStatus.DONE


def test_worker_that_stalled_past_its_lease_drops_its_result(bench: Bench) -> None:
    order_hash = bench.take(lease_ms=120_000, deadline_ms=bench.clock.ms + 120_000)
    quick = TinyEngine()

    def stall(index: int) -> None:
        if index == 3:
            bench.clock.ms += LEASE_MS + 1
            executor(bench, quick, worker="host-infer-2-b").execute(order_hash)

    executor(bench, TinyEngine(stall)).execute(order_hash)
    assert quick.runs == 1
    held = bench.ledger.orders.get(order_hash)
    assert held is not None
    assert held.worker == "host-infer-2-b"


def test_two_workers_racing_make_one_receipt(bench: Bench) -> None:
    order_hash = bench.take()
    engine = TinyEngine()
    gate = threading.Barrier(2)

    def run(worker: str) -> None:
        mine = executor(bench, engine, worker=worker)
        gate.wait()
        mine.execute(order_hash)

    threads = [threading.Thread(target=run, args=(f"host-infer-{n}-x",)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.runs == 1
    assert signed(bench, order_hash).status == ReceiptStatus.DONE


def test_crash_after_stored_chunks_resumes_behind_them(bench: Bench) -> None:
    order_hash = bench.take()

    def crash(index: int) -> None:
        if index == 2:
            raise Crash

    with pytest.raises(Crash):
        executor(bench, TinyEngine(crash)).execute(order_hash)
    kept = bench.ledger.chunks.of(order_hash)
    assert [chunk.index for chunk in kept] == [0, 1]
    bench.ledger.orders.release("host-infer-1-")
    again: list[int] = []
    engine = TinyEngine(again.append)
    executor(bench, engine, worker="host-infer-2-b").execute(order_hash)
    assert again == [2, 3, 4]
    whole = [chunk.body for chunk in bench.ledger.chunks.of(order_hash)]
    assert whole == engine.bodies(seed_of(chat_payload(), order_hash))
    assert signed(bench, order_hash).units_out == 4


def test_crash_between_signing_and_storing_leaves_no_second_receipt(bench: Bench) -> None:
    order_hash = bench.take()
    real = bench.desk._make

    def crash(*args: Any) -> Any:
        real(*args)
        raise Crash

    bench.desk._make = crash  # type: ignore[method-assign]
    with pytest.raises(Crash):
        executor(bench, TinyEngine()).execute(order_hash)
    assert bench.ledger.receipts.get(order_hash) is None
    bench.desk._make = real  # type: ignore[method-assign]
    bench.clock.ms += LEASE_MS
    executor(bench, TinyEngine(), worker="host-infer-2-b").execute(order_hash)
    assert signed(bench, order_hash).status == ReceiptStatus.DONE


def test_crash_between_storing_and_delivering_keeps_the_same_bytes(bench: Bench) -> None:
    order_hash = bench.take()
    first: list[bytes] = []

    def crash(announced: bytes) -> None:
        held = bench.ledger.receipts.get(announced)
        if held is not None:
            first.append(held.message + held.signature)
            raise Crash

    with pytest.raises(Crash):
        executor(bench, TinyEngine(), announce=crash).execute(order_hash)
    assert bench.ledger.orders.undelivered() == [order_hash]
    executor(bench, TinyEngine(), worker="host-infer-2-b").execute(order_hash)
    held = bench.ledger.receipts.get(order_hash)
    assert held is not None
    assert first == [held.message + held.signature]


def test_order_that_kills_its_workers_ends_unpaid_after_three_attempts(bench: Bench) -> None:
    order_hash = bench.take()

    def crash(_index: int) -> None:
        raise Crash

    for attempt in range(3):
        with pytest.raises(Crash):
            executor(bench, TinyEngine(crash), worker=f"host-infer-{attempt}-x").execute(order_hash)
        bench.clock.ms += LEASE_MS
    engine = TinyEngine()
    executor(bench, engine, worker="host-infer-9-x").execute(order_hash)
    receipt = signed(bench, order_hash)
    assert engine.runs == 0
    assert (receipt.status, receipt.amount_atoms) == (ReceiptStatus.FAILED, 0)
    assert finish_of(bench, order_hash) == "crashed"


def test_order_whose_gateway_lease_lapsed_is_signed_as_failed_only(bench: Bench) -> None:
    order_hash = bench.take(lease_ms=5_000)

    def late(index: int) -> None:
        if index == 2:
            bench.clock.ms += 5_000

    executor(bench, TinyEngine(late)).execute(order_hash)
    receipt = signed(bench, order_hash)
    assert (receipt.status, receipt.amount_atoms, receipt.units_out) == (ReceiptStatus.FAILED, 0, 0)
    assert finish_of(bench, order_hash) == "lease_lapsed"
    # The two chunks that left are committed to, also in failure.
    assert receipt.response_hash == response_hash(
        b"\x0a" * 32, [c.body for c in bench.ledger.chunks.of(order_hash)]
    )


def test_lease_that_lapses_between_the_last_chunk_and_signing_still_fails(bench: Bench) -> None:
    order_hash = bench.take(lease_ms=5_000)
    bench.clock.ms += 5_000
    held = bench.desk.sign(order_hash, None, bench.work())
    assert (held.status, held.amount_atoms) == (ReceiptStatus.FAILED, 0)


def test_renewed_gateway_lease_keeps_the_job_alive(bench: Bench) -> None:
    order_hash = bench.take(lease_ms=5_000)
    engine = TinyEngine()
    run = executor(bench, engine)

    def renew(index: int) -> None:
        if index == 2:
            bench.ledger.orders.extend([order_hash], "ws://gateway/v1/link", until_ms=bench.clock.ms + 60_000)
            run._leases.renew()
            bench.clock.ms += 6_000

    engine.before_chunk = renew
    run.execute(order_hash)
    assert signed(bench, order_hash).status == ReceiptStatus.DONE


def test_job_finished_past_its_deadline_is_free(bench: Bench) -> None:
    order_hash = bench.take(deadline_ms=bench.clock.ms + 10)
    bench.clock.ms += 20
    held = bench.desk.sign(order_hash, None, bench.work())
    assert held.amount_atoms == 0


def test_job_found_past_its_deadline_is_not_run(bench: Bench) -> None:
    order_hash = bench.take(deadline_ms=bench.clock.ms + 1_000)
    bench.clock.ms += 1_000
    engine = TinyEngine()
    executor(bench, engine).execute(order_hash)
    assert engine.runs == 0
    assert finish_of(bench, order_hash) == "deadline_passed"


@pytest.mark.parametrize(
    ("error", "finish"),
    [(OutOfContext(900, 512), "input_too_long"), (ZeroDivisionError("boom"), "internal")],
    ids=["the caller's", "ours"],
)
def test_job_that_cannot_be_run_ends_with_its_reason(bench: Bench, error: Exception, finish: str) -> None:
    order_hash = bench.take()

    def fail(_index: int) -> None:
        raise error

    executor(bench, TinyEngine(fail)).execute(order_hash)
    receipt = signed(bench, order_hash)
    assert (receipt.status, receipt.amount_atoms) == (ReceiptStatus.FAILED, 0)
    assert finish_of(bench, order_hash) == finish


def test_model_that_is_not_served_here_fails_the_order(bench: Bench) -> None:
    order_hash = bench.take()

    class Empty:
        def engine_for(self, model_id: bytes) -> Any:
            raise BadRequest(ErrorCode.UNKNOWN_MODEL)

    run = executor(bench, None)
    run._engines = Empty()
    run.execute(order_hash)
    assert finish_of(bench, order_hash) == "unknown_model"


def test_broken_engine_leaves_the_order_to_the_next_task(bench: Bench) -> None:
    order_hash = bench.take()

    def fail(_index: int) -> None:
        raise EngineFailed("out of memory")

    executor(bench, TinyEngine(fail)).execute(order_hash)
    assert bench.ledger.receipts.get(order_hash) is None
    executor(bench, TinyEngine(), worker="host-infer-2-b").execute(order_hash)
    assert signed(bench, order_hash).status == ReceiptStatus.DONE


def test_seed_of_the_request_wins_over_the_derived_one(bench: Bench) -> None:
    engine = TinyEngine()
    order_hash = bench.take(payload=chat_payload(seed=42))
    executor(bench, engine).execute(order_hash)
    bodies = [chunk.body for chunk in bench.ledger.chunks.of(order_hash)]
    assert bodies == engine.bodies(42)


def test_chunk_of_an_order_held_by_another_is_refused(bench: Bench) -> None:
    order_hash = bench.take()
    bench.ledger.jobs.take_up(order_hash, "somebody", now_ms=bench.clock.ms, until_ms=bench.clock.ms + 9)
    told: list[bytes] = []
    lost: list[bytes] = []
    spool = ChunkSpool(bench.ledger, "me", told.extend)
    spool.on_lost = lost.append
    spool.put(NewChunk(order_hash=order_hash, index=0, body=b"{}", token_ids=()))
    assert (lost, told) == ([order_hash], [])
    assert bench.ledger.chunks.of(order_hash) == []


def test_chunk_is_stored_before_it_is_announced(bench: Bench) -> None:
    order_hash = bench.take()
    seen: list[int] = []
    run = executor(
        bench, TinyEngine(), announce=lambda announced: seen.append(len(bench.ledger.chunks.of(announced)))
    )
    run.execute(order_hash)
    assert seen == [1, 2, 3, 4, 5, 5]


def test_daemon_may_not_end_an_order_a_worker_holds(bench: Bench) -> None:
    order_hash = bench.take()
    bench.ledger.jobs.take_up(
        order_hash, "somebody", now_ms=bench.clock.ms, until_ms=bench.clock.ms + LEASE_MS
    )
    with pytest.raises(LostRace):
        bench.desk.fail(order_hash, None, "deadline_passed")


def test_worker_learns_that_its_lease_is_gone(bench: Bench) -> None:
    order_hash = bench.take()
    keeper = LeaseKeeper(bench.ledger, "me", bench.clock, lease_ms=LEASE_MS)
    taken = bench.ledger.jobs.take_up(
        order_hash, "me", now_ms=bench.clock.ms, until_ms=bench.clock.ms + LEASE_MS
    )
    hold = keeper.hold(taken.order)
    keeper.renew()
    hold.check(bench.clock.ms)
    bench.ledger.orders.release("me")
    keeper.renew()
    with pytest.raises(LostRace):
        hold.check(bench.clock.ms)

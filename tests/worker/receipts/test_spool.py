"""What came of many jobs is stored and signed in one transaction, and no job's trouble is another's."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import pytest
from sqlalchemy import event

from marketplace.protocol.errors import LostRace
from marketplace.protocol.merkle import response_hash
from marketplace.protocol.messages import Receipt
from tests.worker.support import Bench
from worker.ledger import DatabaseFailed, HeldOrder, HeldReceipt, MakeReceipt, NewChunk, SignedReceipt
from worker.ledger.jobs import Page
from worker.receipts import ChunkSpool

ME = "host-infer-1-a"


class Spooled:
    """A spool that only stores when told, and what it said."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.told: list[list[bytes]] = []
        self.lost: list[bytes] = []
        self.ended: dict[bytes, HeldReceipt | Exception] = {}
        self.spool = ChunkSpool(bench.ledger, ME, lambda hashes: self.told.append(list(hashes)))
        self.spool.on_lost = self.lost.append
        self.spool._go = lambda: None  # type: ignore[method-assign]

    def take_up(self, seq: int, worker: str = ME) -> HeldOrder:
        order_hash = self.bench.take(seq)
        now_ms = self.bench.clock.ms
        return self.bench.ledger.jobs.take_up(
            order_hash, worker, now_ms=now_ms, until_ms=now_ms + 9_000
        ).order

    def put(self, order: HeldOrder, index: int = 0) -> None:
        self.spool.put(NewChunk(order_hash=order.order_hash, index=index, body=b"{}", token_ids=(index,)))

    def end(self, order: HeldOrder, maker: Callable[[], MakeReceipt] | None = None) -> None:
        def done(receipt: HeldReceipt | Exception) -> None:
            self.ended[order.order_hash] = receipt

        work = self.bench.work()
        self.spool.end(order.order_hash, maker or (lambda: self.bench.desk.maker(order, work)), done)


@contextmanager
def commits(bench: Bench) -> Iterator[list[int]]:
    """Counts the ledger's write transactions in the block."""
    seen: list[int] = []

    def count(connection: Any) -> None:
        if connection.get_execution_options().get("ledger_begin"):
            seen.append(1)

    event.listen(bench.ledger.database.engine, "commit", count)
    yield seen
    event.remove(bench.ledger.database.engine, "commit", count)


def test_chunks_and_receipts_of_many_jobs_are_one_transaction(bench: Bench) -> None:
    spooled = Spooled(bench)
    orders = [spooled.take_up(seq) for seq in (1, 2, 3)]
    for order in orders:
        spooled.put(order, 0)
        spooled.put(order, 1)
    for order in orders[:2]:
        spooled.end(order)
    with commits(bench) as seen:
        spooled.spool.flush()
    assert len(seen) == 1
    assert spooled.told == [[order.order_hash for order in orders]]
    for order in orders[:2]:
        held = spooled.ended[order.order_hash]
        assert held == bench.ledger.receipts.get(order.order_hash)
        assert isinstance(held, HeldReceipt)
        assert held.chunks == 2
        assert Receipt.decode(held.message).response_hash == response_hash(order.salt, [b"{}", b"{}"])
    assert bench.ledger.receipts.get(orders[2].order_hash) is None


def test_receipt_is_stored_when_its_end_is_told(bench: Bench) -> None:
    spooled = Spooled(bench)
    order = spooled.take_up(1)
    seen: list[HeldReceipt | None] = []
    work = bench.work()
    spooled.spool.end(
        order.order_hash,
        lambda: bench.desk.maker(order, work),
        lambda _: seen.append(bench.ledger.receipts.get(order.order_hash)),
    )
    spooled.spool.flush()
    assert seen[0] is not None


def test_defect_in_one_receipt_costs_no_other_job_anything(bench: Bench) -> None:
    spooled = Spooled(bench)
    good, bad, worse = (spooled.take_up(seq) for seq in (1, 2, 3))

    def broken(_held: HeldOrder, _bodies: Sequence[bytes]) -> SignedReceipt:
        raise ZeroDivisionError

    def gone() -> MakeReceipt:
        raise KeyError("offer")

    for order in (good, bad, worse):
        spooled.put(order)
    spooled.end(good)
    spooled.end(bad, lambda: broken)
    spooled.end(worse, gone)
    spooled.spool.flush()
    assert isinstance(spooled.ended[good.order_hash], HeldReceipt)
    assert isinstance(spooled.ended[bad.order_hash], ZeroDivisionError)
    assert isinstance(spooled.ended[worse.order_hash], KeyError)
    assert [len(bench.ledger.chunks.of(order.order_hash)) for order in (good, bad, worse)] == [1, 1, 1]
    assert bench.ledger.receipts.get(bad.order_hash) is None
    assert spooled.lost == []


def test_job_that_cannot_be_ended_keeps_no_other_from_ending(bench: Bench) -> None:
    spooled = Spooled(bench)
    first, second = spooled.take_up(1), spooled.take_up(2)
    called: list[str] = []

    def fail() -> None:
        called.append("first")
        raise DatabaseFailed("disk is full")

    spooled.spool.then(first.order_hash, fail)
    spooled.spool.then(second.order_hash, lambda: called.append("second"))
    spooled.spool.flush()
    assert called == ["first", "second"]


def test_order_of_another_worker_is_neither_stored_nor_signed(bench: Bench) -> None:
    spooled = Spooled(bench)
    mine, theirs = spooled.take_up(1), spooled.take_up(2, worker="host-infer-2-b")
    for order in (mine, theirs):
        spooled.put(order)
        spooled.end(order)
    spooled.spool.flush()
    assert isinstance(spooled.ended[mine.order_hash], HeldReceipt)
    assert isinstance(spooled.ended[theirs.order_hash], LostRace)
    assert spooled.lost == [theirs.order_hash]
    assert spooled.told == [[mine.order_hash]]
    assert bench.ledger.chunks.of(theirs.order_hash) == []


def test_answer_whose_last_chunk_finds_no_room_is_not_signed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spooled = Spooled(bench)
    order, other = spooled.take_up(1), spooled.take_up(2)
    spooled.put(order)
    spooled.end(order)
    spooled.end(other)

    @contextmanager
    def full(_worker: str) -> Iterator[Any]:
        raise DatabaseFailed("disk is full")
        yield

    monkeypatch.setattr(bench.ledger.jobs, "page", full)
    spooled.spool.flush()
    # There was room again when the receipts came up, but one of them would be for less than was written.
    assert isinstance(spooled.ended[order.order_hash], LostRace)
    assert isinstance(spooled.ended[other.order_hash], HeldReceipt)
    assert spooled.lost == [order.order_hash]
    assert spooled.told == [[other.order_hash]]
    assert bench.ledger.receipts.get(order.order_hash) is None


def test_claim_is_stored_with_what_else_there_is(bench: Bench) -> None:
    spooled = Spooled(bench)
    running, ending, waiting = spooled.take_up(1), spooled.take_up(2), bench.take(3)
    spooled.put(running)
    spooled.end(ending)
    now_ms = bench.clock.ms
    with commits(bench) as seen, ThreadPoolExecutor(2) as hands:
        claims = [
            hands.submit(spooled.spool.take_up, order_hash, now_ms=now_ms, until_ms=now_ms + 9)
            for order_hash in (waiting, b"\x00" * 32)
        ]
        while len(spooled.spool._items) < 4:
            time.sleep(0.001)
        spooled.spool.flush()
        taken = claims[0].result(9)
        with pytest.raises(LostRace):
            claims[1].result(9)
    assert len(seen) == 1
    assert (taken.order.order_hash, taken.order.worker, taken.order.attempts) == (waiting, ME, 1)
    assert isinstance(spooled.ended[ending.order_hash], HeldReceipt)
    # Nobody is told of an order that is only taken up.
    assert spooled.told == [[running.order_hash, ending.order_hash]]


def test_neither_a_claim_nor_the_first_chunk_after_one_waits_for_a_pause(bench: Bench) -> None:
    told: SimpleQueue[list[bytes]] = SimpleQueue()
    spool = ChunkSpool(bench.ledger, ME, lambda hashes: told.put(list(hashes)), every_ms=3_600_000)
    spool.start()
    now_ms = bench.clock.ms
    try:
        for seq in (1, 2):
            order_hash = bench.take(seq)
            taken = spool.take_up(order_hash, now_ms=now_ms, until_ms=now_ms + 9)
            assert taken.order.order_hash == order_hash
        spool.put(NewChunk(order_hash=order_hash, index=0, body=b"{}", token_ids=()))
        assert told.get(timeout=9) == [order_hash]
        # In the pause that follows there is no waiting for a claim either; the next chunk goes with it.
        spool.put(NewChunk(order_hash=order_hash, index=1, body=b"{}", token_ids=()))
        spool.take_up(bench.take(3), now_ms=now_ms, until_ms=now_ms + 9)
        assert told.get(timeout=9) == [order_hash]
    finally:
        spool.stop()


def test_claim_that_need_not_hurry_waits_for_what_does(bench: Bench) -> None:
    told: SimpleQueue[list[bytes]] = SimpleQueue()
    spool = ChunkSpool(bench.ledger, ME, lambda hashes: told.put(list(hashes)), every_ms=3_600_000)
    spool.start()
    times = {"now_ms": bench.clock.ms, "until_ms": bench.clock.ms + 9}
    first, patient, last = bench.take(1), bench.take(2), bench.take(3)
    try:
        spool.take_up(first, **times)
        spool.put(NewChunk(order_hash=first, index=0, body=b"{}", token_ids=()))
        told.get(timeout=9)
        with ThreadPoolExecutor(1) as hands:
            waiting = hands.submit(spool.take_up, patient, **times, hurry=False)
            while not spool._items:
                time.sleep(0.001)
            assert not waiting.done()
            with commits(bench) as seen:
                spool.take_up(last, **times)
                assert waiting.result(9).order.order_hash == patient
        assert len(seen) == 1
    finally:
        spool.stop()


def test_claim_that_cannot_be_stored_is_said_to_whoever_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    spooled = Spooled(bench)
    order_hash = bench.take(1)

    def full(*_: Any, **__: Any) -> Any:
        raise DatabaseFailed("disk is full")

    spool = ChunkSpool(bench.ledger, ME, spooled.told.append)
    with monkeypatch.context() as broken:
        broken.setattr(Page, "take_up", full)
        with pytest.raises(DatabaseFailed):
            spool.take_up(order_hash, now_ms=bench.clock.ms, until_ms=bench.clock.ms + 9)
    assert spool.take_up(order_hash, now_ms=bench.clock.ms, until_ms=bench.clock.ms + 9).order.attempts == 1


def test_end_of_one_of_few_jobs_does_not_wait_with_the_chunks_and_comes_after_them(bench: Bench) -> None:
    order_hash = bench.take()
    bench.ledger.jobs.take_up(order_hash, ME, now_ms=bench.clock.ms, until_ms=bench.clock.ms + 10_000)
    told, ended, stored = threading.Event(), threading.Event(), list[int]()

    def end() -> None:
        stored.extend(held.index for held in bench.ledger.chunks.of(order_hash))
        ended.set()

    spool = ChunkSpool(bench.ledger, ME, lambda _: told.set(), every_ms=3_600_000)
    spool.start()
    try:
        spool.put(NewChunk(order_hash=order_hash, index=0, body=b"{}", token_ids=()))
        # The first goes at once; from here on the spool waits for company.
        assert told.wait(10)
        spool.put(NewChunk(order_hash=order_hash, index=1, body=b"{}", token_ids=()))
        assert not ended.is_set()
        spool.then(order_hash, end)
        assert ended.wait(10)
    finally:
        spool.stop()
    assert stored == [0, 1]

"""The ledger's own promises: journal, versions, several processes, leases."""

import itertools
import multiprocessing
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError

from marketplace.protocol.errors import BadRequest, Broken, LostRace
from marketplace.protocol.transactions import TxRecord, TxState
from tests.worker.support import GATEWAY, KEY, Bench
from worker.ledger import DatabaseFailed, HeldClaim, HeldOpening, HeldSession, Ledger, NewChunk, OrderState

POSTGRES = "WATT_TEST_POSTGRES_URL"
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where there is no ledger yet, of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
    elif POSTGRES not in os.environ:
        pytest.skip(f"{POSTGRES} names no PostgreSQL server")
    else:
        schema = f"ledger_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(os.environ[POSTGRES], autocommit=True) as admin:
            admin.execute(f"CREATE SCHEMA {schema}")
            try:
                yield f"{os.environ[POSTGRES]}?options=-csearch_path%3D{schema}"
            finally:
                admin.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An empty ledger of each kind."""
    made = Ledger(url)
    yield made
    made.close()


def record(**changes: Any) -> TxRecord:
    values: dict[str, Any] = {
        "intent": secrets.token_hex(8),
        "sender": "0x" + secrets.token_hex(20),
        "nonce": 0,
        "raw": b"\x01",
        "tx_hash": b"\x02" * 32,
        "state": TxState.SIGNED,
        "created_at_ms": 1,
        "trace_ids": "a,b",
    }
    return TxRecord(**values | changes)


def test_ledger_is_made_once_though_many_open_it_at_once(url: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        for made in pool.map(lambda _: Ledger(url), range(8)):
            made.close()


def test_session_is_stored_once_though_many_read_it_first_at_once(ledger: Ledger) -> None:
    seen = HeldSession(
        session_id=b"\x51" * 32, key=KEY.address, node_id=1, key_epoch=1, deposited_atoms=1 << 100,
        paid_atoms=0, through_seq=0, expires_at=9, closed=False, read_at_ms=0,
    )  # fmt: skip
    opening = HeldOpening(session_id=seen.session_id, terms=None)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ledger.openings.put(opening), range(8)))
        list(pool.map(lambda n: ledger.sessions.put(replace(seen, read_at_ms=n)), range(8)))
    assert ledger.openings.get(seen.session_id) == opening
    assert ledger.sessions.get(seen.session_id) == replace(seen, read_at_ms=7)


def test_journal_keeps_the_exact_record(ledger: Ledger) -> None:
    made = record()
    ledger.transactions.add(made)
    assert ledger.transactions.find(made.intent) == made
    assert ledger.transactions.find("another") is None


def test_journal_refuses_a_second_record_of_an_intent_or_nonce(ledger: Ledger) -> None:
    made = record()
    ledger.transactions.add(made)
    with pytest.raises(LostRace):
        ledger.transactions.add(record(intent=made.intent))
    with pytest.raises(LostRace):
        ledger.transactions.add(record(sender=made.sender))


def test_journal_counts_nonces_and_lists_what_is_pending_by_nonce(ledger: Ledger) -> None:
    sender = record().sender
    assert ledger.transactions.next_nonce(sender) == 0
    records = [record(sender=sender, nonce=nonce) for nonce in (4, 2, 3)]
    for made in records:
        ledger.transactions.add(made)
    assert ledger.transactions.next_nonce(sender) == 5
    ledger.transactions.mark(records[1].intent, TxState.CONFIRMED, block_number=9, block_hash=b"\x09" * 32)
    ledger.transactions.mark(records[0].intent, TxState.MINED, block_number=9, block_hash=b"\x09" * 32)
    assert [found.nonce for found in ledger.transactions.pending(sender)] == [3, 4]
    ledger.transactions.mark(records[0].intent, TxState.SIGNED, block_number=None, block_hash=None)
    assert ledger.transactions.find(records[0].intent) == records[0]


def test_amounts_above_63_bits_survive_where_nothing_sums_them(ledger: Ledger) -> None:
    held = HeldSession(
        session_id=secrets.token_bytes(32),
        key="0x",
        node_id=1,
        key_epoch=1,
        deposited_atoms=(1 << 64) - 1,
        paid_atoms=1 << 63,
        through_seq=0,
        expires_at=1,
        closed=False,
        read_at_ms=5,
    )
    ledger.sessions.put(held)
    assert ledger.sessions.get(held.session_id) == held


def test_older_reading_of_a_session_does_not_replace_a_newer_one(ledger: Ledger) -> None:
    session_id = secrets.token_bytes(32)
    for read_at_ms, deposited in ((5, 50), (4, 40)):
        ledger.sessions.put(
            HeldSession(
                session_id=session_id,
                key="0x",
                node_id=1,
                key_epoch=1,
                deposited_atoms=deposited,
                paid_atoms=0,
                through_seq=0,
                expires_at=1,
                closed=False,
                read_at_ms=read_at_ms,
            )
        )
    found = ledger.sessions.get(session_id)
    assert found is not None
    assert found.deposited_atoms == 50


def test_ledger_of_another_schema_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).notes.put("schema_version", "99")
    with pytest.raises(Broken, match="schema 99"):
        Ledger(url)


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite://", "sqlite:///:memory:"])
def test_ledger_url_that_cannot_be_shared_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        Ledger(url)


def _open_and_write(url: str, name: str) -> None:
    ledger = Ledger(url)
    for number in range(20):
        ledger.notes.put(f"{name}.{number}", "x")
    ledger.close()


def test_processes_create_and_write_one_ledger_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open_and_write, args=(url, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    ledger = Ledger(url)
    assert all(ledger.notes.get(f"{name}.19") == "x" for name in "abc")


def test_claim_is_refused_while_a_lease_stands_and_counts_attempts(bench: Bench) -> None:
    order_hash, now_ms = bench.take(), bench.clock.ms
    jobs = bench.ledger.jobs
    assert jobs.take_up(order_hash, "a", now_ms=now_ms, until_ms=now_ms + 10).order.attempts == 1
    with pytest.raises(LostRace):
        jobs.take_up(order_hash, "b", now_ms=now_ms + 9, until_ms=now_ms + 20)
    assert jobs.take_up(order_hash, "b", now_ms=now_ms + 10, until_ms=now_ms + 20).order.attempts == 2


def test_claim_brings_what_earlier_attempts_left(bench: Bench) -> None:
    order_hash, now_ms = bench.take(), bench.clock.ms
    first = bench.ledger.jobs.take_up(order_hash, "a", now_ms=now_ms, until_ms=now_ms + 10)
    assert (first.chunks, first.cancelled) == ((), False)
    # More than one statement takes.
    chunks = [
        NewChunk(order_hash=order_hash, index=i, body=b"%d" % i, token_ids=(i, i + 1)) for i in range(1_234)
    ]
    with bench.ledger.jobs.page("a") as page:
        assert page.add(chunks) == set()
    with bench.ledger.jobs.page("b") as page:
        assert page.add(chunks) == {order_hash}
    bench.ledger.cancels.ask(order_hash, now_ms=now_ms)
    second = bench.ledger.jobs.take_up(order_hash, "b", now_ms=now_ms + 10, until_ms=now_ms + 20)
    assert second.cancelled
    assert [(one.index, one.body, one.token_ids) for one in second.chunks] == [
        (one.index, one.body, one.token_ids) for one in chunks
    ]


def test_broken_transaction_leaves_nothing_and_says_so_as_the_toolkit_does(ledger: Ledger) -> None:
    with pytest.raises(IntegrityError), ledger.database.write_plain() as plain:
        plain.insert("INSERT INTO cancel (order_hash, asked_at_ms)", [(b"a", 1), (b"b", 2), (b"a", 3)])
    assert ledger.cancels.among([b"a", b"b"]) == set()
    with pytest.raises(DatabaseFailed), ledger.database.read_plain() as plain:
        plain.rows("SELECT * FROM nowhere WHERE name = ?", ("x",))
    ledger.cancels.ask(b"b", now_ms=1)
    assert ledger.cancels.among([b"a", b"b"]) == {b"b"}
    assert ledger.cancels.among([]) == set()


def test_unknown_order_cannot_be_claimed(bench: Bench) -> None:
    with pytest.raises(LostRace):
        bench.ledger.jobs.take_up(b"\x00" * 32, "a", now_ms=1, until_ms=2)


def test_lease_of_a_dead_process_is_freed_by_its_name_alone(bench: Bench) -> None:
    first, second = bench.take(1), bench.take(2)
    orders, now_ms = bench.ledger.orders, bench.clock.ms
    bench.ledger.jobs.take_up(first, "host_a-infer-12-x", now_ms=now_ms, until_ms=now_ms + 10)
    bench.ledger.jobs.take_up(second, "host_a-infer-123-x", now_ms=now_ms, until_ms=now_ms + 10)
    assert orders.release("host_a-infer-12-") == [first]
    held = orders.get(first)
    assert held is not None
    assert (held.state, held.worker_lease_until_ms, held.task_sent_at_ms) == (OrderState.QUEUED, 0, 0)


def test_gateway_lease_never_moves_back_nor_for_another_gateway(bench: Bench) -> None:
    order_hash = bench.take(lease_ms=5_000)
    until_ms = bench.clock.ms + 5_000
    bench.ledger.orders.extend([order_hash], GATEWAY, until_ms=until_ms - 1)
    bench.ledger.orders.extend([order_hash], "ws://other", until_ms=until_ms + 1)
    held = bench.ledger.orders.get(order_hash)
    assert held is not None
    assert held.gateway_lease_until_ms == until_ms


def test_claim_goes_from_unpaid_receipts_to_its_end_on_every_database(ledger: Ledger, tmp_path: Path) -> None:
    made = Bench(tmp_path, ledger)
    expires_at = made.clock.ms // 1000 + 3_600
    first, second, failed = made.receipt(1), made.receipt(2), made.receipt(3, failed=True)
    for receipt in (first, failed):
        ledger.receipts.sent(receipt.order_hash, now_ms=1)
    assert ledger.claims.unpaid(expired_after=expires_at, expired_by=expires_at) == []
    (unpaid,) = ledger.claims.unpaid(expired_after=expires_at - 1, expired_by=expires_at)
    assert (unpaid.owed_atoms, unpaid.unfinished, unpaid.expires_at) == (1_003, 0, expires_at)
    assert (unpaid.key, unpaid.voucher_waits, unpaid.claim_waits) == (KEY.address, False, False)
    assert unpaid.unconfirmed == 1
    ledger.receipts.sent(second.order_hash, now_ms=1)
    assert sorted(ledger.claims.owed(made.session_id, after_seq=0)) == [(1, 1_003), (2, 1_003)]
    assert ledger.claims.owed(made.session_id, after_seq=1) == [(2, 1_003)]
    jobs = ledger.claims.jobs(made.session_id, [2, 1, 3])
    assert [(job.seq, job.receipt, job.receipt_signature) for job in jobs] == [
        (receipt.seq, receipt.message, receipt.signature) for receipt in (first, second)
    ]
    assert [job.seq for job in ledger.claims.jobs(made.session_id, [2])] == [2]
    ledger.signing.delivered(second.order_hash, now_ms=2)
    claim = HeldClaim(
        session_id=made.session_id,
        key=KEY.address,
        terms=b"terms",
        through_seq=1,
        claimed_atoms=1_003,
        paid_before_atoms=0,
        made_at_ms=5,
    )
    ledger.claims.put(claim)
    assert (ledger.claims.waiting(), ledger.claims.covered_atoms()) == ([claim], 0)
    pending = replace(claim, pending_atoms=1_003, final_at=9)
    ledger.claims.note(pending, settled_seq=0)
    assert (ledger.claims.get(made.session_id), ledger.claims.covered_atoms()) == (pending, 1_003)
    (unpaid,) = ledger.claims.unpaid(expired_after=expires_at - 1, expired_by=expires_at)
    assert (unpaid.owed_atoms, unpaid.claim_waits, unpaid.unconfirmed) == (2_006, True, 1)
    ended = replace(claim, paid_atoms=1_003, final_at=9, ended=True)
    ledger.claims.note(ended, settled_seq=1)
    assert (ledger.claims.waiting(), ledger.claims.all()) == ([], [ended])
    assert ledger.receipts.totals()["open_atoms"] == 1_003


def test_order_goes_from_acceptance_to_settlement_on_every_database(ledger: Ledger, tmp_path: Path) -> None:
    made = Bench(tmp_path, ledger)
    first, second = made.receipt(1), made.receipt(2, failed=True)
    made.take(3)
    usage = ledger.acceptance.usage(made.session_id, pays_after=0)
    assert (usage.owed_atoms, usage.in_flight_atoms, usage.node_exposed_atoms) == (1_003, 2_000, 3_003)
    assert ledger.orders.counts()[OrderState.QUEUED] == 1
    made.vouchers.take(*made.voucher(2, 1_003, [first.digest, second.digest]))
    ledger.signing.delivered(first.order_hash, now_ms=5)
    assert len(ledger.orders.undelivered()) == 2
    (voucher,) = ledger.vouchers.unsettled()
    ledger.vouchers.paid(voucher.session_id, amount_atoms=1_003, through_seq=2, now_ms=9)
    assert ledger.vouchers.unsettled() == []
    assert ledger.receipts.totals()["receipts_atoms"] == 1_003

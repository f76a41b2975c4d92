from __future__ import annotations

import dataclasses

import pytest

from marketplace.protocol.transactions import TxState
from marketplace.store import outbox
from marketplace.store.engine import Store
from marketplace.store.outbox import REVERTED, OutboxEntry, OutboxState, Wanted
from marketplace.store.transactions import StoreJournal
from tests.store.test_transactions import record

OPEN = Wanted(intent="open:1", contract="0x" + "CC" * 20, data=b"\x01", what="open", trace_id="t")


def ask(store: Store, wanted: Wanted = OPEN, now_ms: int = 1) -> OutboxEntry:
    with store.transaction() as db:
        return outbox.ask(db, wanted, now_ms=now_ms)


def state(store: Store, intent: str = "open:1") -> tuple[str, str | None]:
    with store.reading() as db:
        found = outbox.find(db, intent)
    assert found is not None
    return found.state.value, found.problem


def follow(store: Store) -> list[OutboxEntry]:
    with store.transaction() as db:
        return outbox.follow_transactions(db)


def test_asking_twice_is_asking_once(store: Store) -> None:
    first = ask(store)
    assert ask(store, dataclasses.replace(OPEN, data=b"\x02"), now_ms=9) == first
    with store.reading() as db:
        assert outbox.waiting(db, limit=9) == [first]


def test_asking_is_undone_with_its_reason(store: Store) -> None:
    def cut_short() -> None:
        with store.transaction() as db:
            outbox.ask(db, OPEN, now_ms=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut_short()
    with store.reading() as db:
        assert outbox.find(db, "open:1") is None


def test_waiting_goes_oldest_first_and_stops_at_the_limit(store: Store) -> None:
    for number in range(4):
        ask(store, dataclasses.replace(OPEN, intent=f"open:{number}"))
    with store.transaction() as db:
        outbox.mark_sent(db, "open:0")
        assert [e.wanted.intent for e in outbox.waiting(db, limit=2)] == ["open:1", "open:2"]


def test_only_what_waits_can_be_sent_or_refused(store: Store) -> None:
    ask(store)
    with store.transaction() as db:
        assert outbox.mark_sent(db, "open:1")
        assert not outbox.mark_sent(db, "open:1")
        assert not outbox.mark_failed(db, "open:1", "too late")
    assert state(store) == ("sent", None)


def test_what_failed_before_signing_waits_again_when_asked_again(store: Store) -> None:
    ask(store)
    with store.transaction() as db:
        outbox.mark_failed(db, "open:1", "Escrow_AboveAccount")
    assert state(store) == ("failed", "Escrow_AboveAccount")
    again = ask(store, dataclasses.replace(OPEN, data=b"\x02"), now_ms=9)
    assert (again.state, again.problem, again.wanted.data) == (OutboxState.WAITING, None, b"\x02")


def test_what_reverted_on_chain_stays_failed_when_asked_again(store: Store) -> None:
    ask(store)
    StoreJournal(store).add(record(state=TxState.REVERTED, block_number=1, block_hash=b"\x01" * 32))
    follow(store)
    assert ask(store).state is OutboxState.FAILED


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (TxState.SIGNED, ("sent", None)),
        (TxState.MINED, ("sent", None)),
        (TxState.CONFIRMED, ("confirmed", None)),
        (TxState.REVERTED, ("failed", REVERTED)),
    ],
)
def test_an_entry_follows_its_transaction_from_wherever_it_was(
    store: Store, seen: TxState, expected: tuple[str, str | None]
) -> None:
    ask(store)
    StoreJournal(store).add(record(state=seen))
    assert [entry.state.value for entry in follow(store)] == [expected[0]]
    assert state(store) == expected
    assert follow(store) == []


def test_a_confirmed_entry_goes_back_when_the_chain_lost_its_transaction(store: Store) -> None:
    ask(store)
    journal = StoreJournal(store)
    journal.add(record(state=TxState.CONFIRMED, block_number=1, block_hash=b"\x01" * 32))
    follow(store)
    journal.mark("open:1", TxState.SIGNED, block_number=None, block_hash=None)
    follow(store)
    assert state(store) == ("sent", None)


def test_a_reason_replaces_the_bare_fact_of_failure_only(store: Store) -> None:
    ask(store)
    with store.transaction() as db:
        outbox.explain(db, "open:1", "why")
    assert state(store) == ("waiting", None)
    with store.transaction() as db:
        outbox.mark_failed(db, "open:1", REVERTED)
        outbox.explain(db, "open:1", "why")
    assert state(store) == ("failed", "why")


def test_depth_counts_what_has_not_left(store: Store) -> None:
    with store.reading() as db:
        assert outbox.depth(db) == outbox.OutboxDepth(waiting=0, unconfirmed=0, oldest_waiting_ms=None)
    for number in range(3):
        ask(store, dataclasses.replace(OPEN, intent=f"open:{number}"), now_ms=10 + number)
    with store.transaction() as db:
        outbox.mark_sent(db, "open:0")
        assert outbox.depth(db) == outbox.OutboxDepth(waiting=2, unconfirmed=1, oldest_waiting_ms=11)

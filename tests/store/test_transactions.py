from __future__ import annotations

import dataclasses

import pytest

from marketplace.protocol.errors import Broken, LostRace
from marketplace.protocol.transactions import TxRecord, TxState
from marketplace.store.engine import Store
from marketplace.store.transactions import StoreJournal, transaction_of

SENDER = "0x" + "AA" * 20


def record(intent: str = "open:1", nonce: int = 0, **changes: object) -> TxRecord:
    made = TxRecord(
        intent=intent,
        sender=SENDER,
        nonce=nonce,
        raw=b"\x02raw" + intent.encode(),
        tx_hash=nonce.to_bytes(32, "big"),
        state=TxState.SIGNED,
        created_at_ms=1,
        trace_ids="a,b",
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def test_a_record_comes_back_as_it_was(store: Store) -> None:
    journal = StoreJournal(store)
    journal.add(record())
    assert journal.find("open:1") == record()
    assert journal.find("open:2") is None
    with store.reading() as db:
        assert transaction_of(db, "open:1") == record()


@pytest.mark.parametrize("taken", [record(nonce=7), record(intent="open:2")], ids=["intent", "nonce"])
def test_a_taken_intent_or_nonce_is_a_lost_race(store: Store, taken: TxRecord) -> None:
    journal = StoreJournal(store)
    journal.add(record())
    with pytest.raises(LostRace):
        journal.add(taken)
    assert journal.pending(SENDER) == [record()]


def test_the_same_nonce_of_another_sender_is_free(store: Store) -> None:
    journal = StoreJournal(store)
    journal.add(record())
    journal.add(record("open:2", sender="0x" + "BB" * 20))
    assert len(journal.pending(SENDER)) == 1


def test_pending_leaves_out_what_ended_and_goes_by_nonce(store: Store) -> None:
    journal = StoreJournal(store)
    for nonce in (3, 1, 2, 0):
        journal.add(record(f"open:{nonce}", nonce))
    journal.mark("open:0", TxState.CONFIRMED, block_number=9, block_hash=b"\x09" * 32)
    journal.mark("open:1", TxState.MINED, block_number=10, block_hash=b"\x0a" * 32)
    journal.mark("open:2", TxState.REVERTED, block_number=10, block_hash=b"\x0a" * 32)
    assert [found.nonce for found in journal.pending(SENDER)] == [1, 3]


def test_mark_keeps_the_bytes_and_can_go_back(store: Store) -> None:
    journal = StoreJournal(store)
    journal.add(record())
    journal.mark("open:1", TxState.MINED, block_number=4, block_hash=b"\x04" * 32)
    mined = record(state=TxState.MINED, block_number=4, block_hash=b"\x04" * 32)
    assert journal.find("open:1") == mined
    journal.mark("open:1", TxState.SIGNED, block_number=None, block_hash=None)
    assert journal.find("open:1") == record()


def test_marking_what_was_never_signed_is_our_defect(store: Store) -> None:
    with pytest.raises(Broken):
        StoreJournal(store).mark("open:1", TxState.MINED, block_number=1, block_hash=b"\x01" * 32)


def test_next_nonce_is_above_everything_ever_signed(store: Store) -> None:
    journal = StoreJournal(store)
    assert journal.next_nonce(SENDER) == 0
    journal.add(record("open:4", 4))
    journal.mark("open:4", TxState.CONFIRMED, block_number=1, block_hash=b"\x01" * 32)
    assert journal.next_nonce(SENDER) == 5

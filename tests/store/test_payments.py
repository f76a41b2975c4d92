from __future__ import annotations

import pytest

from marketplace.protocol.errors import LostRace
from marketplace.store import payments
from marketplace.store.engine import Store
from marketplace.store.tables import KeyRow, PaymentRow


def row(name: str, **columns: object) -> PaymentRow:
    values: dict[str, object] = {
        "receiver": name,
        "session_id": f"session of {name}",
        "key": f"key of {name}",
        "model_id": "0x",
        "quote": b"",
        "payer": "payer",
        "message": b"",
        "signature": b"",
        "fingerprint": "",
        "asked_at_ms": 0,
        "due_at": 0,
    }
    return PaymentRow(**(values | columns))


def key(name: str) -> KeyRow:
    address = f"key of {name}"
    return KeyRow(address=address, secret_hash=address, sealed_key=b"", label="x402", created_at_ms=0)


def test_payment_that_is_there_by_now_loses_the_race(store: Store) -> None:
    with store.transaction() as tx:
        payments.add(tx, row("a"), key("a"))
    with pytest.raises(LostRace, match="kept already"), store.transaction() as tx:
        payments.add(tx, row("a"), key("a"))


def test_identifier_names_one_payment(store: Store) -> None:
    with store.transaction() as tx:
        payments.add(tx, row("a", identifier="mine"), key("a"))
        payments.add(tx, row("b"), key("b"))
    with store.reading() as tx:
        found = payments.find_identified(tx, "mine")
        assert found is not None
        assert found.receiver == "a"
        assert payments.find_identified(tx, "other") is None
    with pytest.raises(LostRace), store.transaction() as tx:
        payments.add(tx, row("c", identifier="mine"), key("c"))


def test_undone_come_soonest_due_first_until_they_end(store: Store) -> None:
    with store.transaction() as tx:
        for name, due_at in (("late", 9), ("soon", 1), ("ended", 0)):
            payments.add(tx, row(name, due_at=due_at), key(name))
        ended = payments.find(tx, "ended")
        assert ended is not None
        payments.end(tx, ended)
    with store.reading() as tx:
        assert [found.receiver for found in payments.undone(tx, 10)] == ["soon", "late"]
        assert [found.receiver for found in payments.undone(tx, 1)] == ["soon"]

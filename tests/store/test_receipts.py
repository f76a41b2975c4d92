from __future__ import annotations

import pytest

from marketplace.protocol.errors import LostRace
from marketplace.store import receipts
from marketplace.store.tables import ReceiptRow


def receipt_row(seq=1, **changes):
    values = {
        "order_hash": f"0x{seq}",
        "receipt_id": f"rcpt_{seq}",
        "job_id": f"job_{seq}",
        "session_id": "0xs",
        "seq": seq,
        "message": b"m",
        "signature": b"s",
        "annex": b"a",
        "amount_atoms": 7,
        "status": 1,
        "received_at_ms": 1,
    }
    return ReceiptRow(**(values | changes))


def test_response_comes_back_in_order_byte_for_byte(store):
    bodies = [bytes([n]) * 3 for n in range(12)]
    with store.transaction() as tx:
        receipts.add(tx, receipt_row(), bodies)
    with store.reading() as tx:
        assert receipts.chunks(tx, "0x1") == bodies
        assert receipts.find_by_id(tx, "rcpt_1").order_hash == "0x1"


def test_order_gets_one_receipt(store):
    with store.transaction() as tx:
        receipts.add(tx, receipt_row(), ())
    with pytest.raises(LostRace), store.transaction() as tx:
        receipts.add(tx, receipt_row(receipt_id="rcpt_x"), ())


def test_superseded_receipts_are_listed_but_not_owed(store):
    with store.transaction() as tx:
        for seq in (3, 1, 2):
            receipts.add(tx, receipt_row(seq, superseded=seq == 2), ())
    with store.reading() as tx:
        assert [row.seq for row in receipts.of_session(tx, "0xs")] == [1, 2, 3]
        assert [row.seq for row in receipts.owed_between(tx, "0xs", 0, 3)] == [1, 3]
        assert [row.seq for row in receipts.owed_between(tx, "0xs", 1, 2)] == []

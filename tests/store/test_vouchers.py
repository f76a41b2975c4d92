from __future__ import annotations

from marketplace.protocol.hexes import keccak
from marketplace.protocol.merkle import Frontier
from marketplace.store import vouchers
from marketplace.store.tables import VoucherRow


def voucher_row(through_seq=3, **changes):
    values = {
        "session_id": "0xs",
        "node_id": 1,
        "through_seq": through_seq,
        "amount_atoms": 5,
        "message": b"m",
        "signature": b"s",
        "signed_at_ms": 1,
    }
    return VoucherRow(**(values | changes))


def test_frontier_survives_the_database(store):
    tree = Frontier()
    for number in range(11):
        tree = tree.append(keccak(b"%d" % number))
        with store.transaction() as tx:
            vouchers.put(tx, voucher_row(number, leaves=tree.count, peaks=b"".join(tree.peaks)))
        with store.reading() as tx:
            assert vouchers.frontier(vouchers.find(tx, "0xs")) == tree
    assert vouchers.frontier(None) == Frontier()


def test_answer_to_an_older_voucher_changes_nothing(store):
    with store.transaction() as tx:
        vouchers.put(tx, voucher_row(3))
        vouchers.mark_taken(tx, "0xs", 2, None)
    with store.transaction() as tx:
        assert [row.through_seq for row in vouchers.untaken(tx, 1)] == [3]
        assert vouchers.untaken(tx, 2) == []
        vouchers.mark_taken(tx, "0xs", 3, None)
    with store.reading() as tx:
        assert vouchers.untaken(tx, 1) == []


def test_refused_voucher_stays_untaken_with_its_reason(store):
    with store.transaction() as tx:
        vouchers.put(tx, voucher_row(3))
        vouchers.mark_taken(tx, "0xs", 3, "voucher_mismatch: sum")
    with store.reading() as tx:
        (row,) = vouchers.untaken(tx, 1)
        assert row.problem == "voucher_mismatch: sum"

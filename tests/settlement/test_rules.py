from __future__ import annotations

import random

import pytest

from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import keccak
from marketplace.protocol.merkle import Frontier, root
from marketplace.settlement import rules

EMPTY = rules.Tally(through_seq=0, amount_atoms=0, frontier=Frontier())


def owed(seq, *, answered=True):
    return rules.Owed(seq=seq, digest=keccak(b"%d" % seq), amount_atoms=seq * 10, answered=answered)


@pytest.mark.parametrize(
    ("through", "places", "reached"),
    [
        (0, [], 0),
        (0, [(1, True), (2, True), (3, False), (4, True)], 2),
        (0, [(1, False), (2, True)], 0),
        (0, [(2, True)], 0),
        (2, [(3, True), (5, True)], 3),
    ],
)
def test_prefix_stops_at_the_first_gap_or_running_order(through, places, reached):
    assert rules.ended_prefix(through, places) == reached


def test_extending_in_any_steps_gives_the_root_of_all_receipts():
    rng = random.Random(5)  # noqa: S311 - test data
    receipts = [owed(seq) for seq in range(1, 40) if rng.random() < 0.8]
    tally, last = EMPTY, 0
    while last < 40:
        step = rng.randint(1, 7)
        part = [item for item in receipts if last < item.seq <= last + step]
        tally, last = rules.extend(tally, last + step, part), last + step
    voucher = rules.voucher_of(bytes(32), tally)
    assert voucher.receipts_root == root([item.digest for item in receipts])
    assert voucher.amount_atoms == sum(item.amount_atoms for item in receipts)


def test_failed_receipts_alone_are_not_worth_a_voucher():
    assert not rules.worth_signing([])
    assert not rules.worth_signing([owed(1, answered=False)])
    assert rules.worth_signing([owed(1, answered=False), owed(2)])


def test_voucher_above_the_deposit_is_refused():
    voucher = rules.voucher_of(bytes(32), rules.extend(EMPTY, 1, [owed(1)]))
    rules.check_voucher(voucher, voucher, [], 10)
    with pytest.raises(BadRequest, match="holds only 9"):
        rules.check_voucher(voucher, voucher, [], 9)

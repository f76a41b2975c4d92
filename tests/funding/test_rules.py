from __future__ import annotations

import pytest

from marketplace.funding.rules import EXPIRY_MARGIN_MS, Price, Purse, choose
from marketplace.protocol.errors import BadRequest, ErrorCode

DEADLINE_MS = 10_000


def price(node_id, ceiling=10, epoch=1):
    return Price(node_id=node_id, epoch=epoch, ceiling_atoms=ceiling)


def purse(node_id, left=10, *, epoch=1, expires_at=100, name="s"):
    return Purse(session_id=name, node_id=node_id, key_epoch=epoch, left_atoms=left, expires_at=expires_at)


def test_first_payable_price_wins_and_the_first_session_that_covers_it():
    purses = [purse(2, 9, name="small"), purse(2, 10, name="fits"), purse(3, 99, name="other")]
    assert choose([price(1), price(2), price(3)], purses, DEADLINE_MS) == (1, purses[1])


def test_session_must_outlast_the_deadline():
    last = (DEADLINE_MS + EXPIRY_MARGIN_MS) // 1000
    choose([price(1)], [purse(1, expires_at=last + 1)], DEADLINE_MS)
    with pytest.raises(BadRequest) as seen:
        choose([price(1)], [purse(1, expires_at=last)], DEADLINE_MS)
    assert seen.value.code is ErrorCode.SESSION_EXPIRED


def test_session_of_a_former_key_epoch_does_not_count():
    with pytest.raises(BadRequest) as seen:
        choose([price(1, epoch=2)], [purse(1)], DEADLINE_MS)
    assert seen.value.code is ErrorCode.NO_SESSION


def test_underfunded_names_the_session_to_top_up():
    with pytest.raises(
        BadRequest, match="7 atoms are left, this job may cost 10: top up session big"
    ) as seen:
        choose([price(1)], [purse(1, 3, name="less"), purse(1, 7, name="big")], DEADLINE_MS)
    assert seen.value.code is ErrorCode.SESSION_UNDERFUNDED

from __future__ import annotations

import pytest

from marketplace.protocol.shares import WHOLE_BPS, draws

PINNED = [0, 1, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0]
TICKETS = [number.to_bytes(4, "big") for number in range(20_000)]


def test_same_ticket_draws_the_same_for_ever() -> None:
    """Written out: a node and a gateway of different releases must agree."""
    assert [int(draws(ticket, 5_000)) for ticket in TICKETS[:12]] == PINNED


@pytest.mark.parametrize("share_bps", [0, 1, 500, 5_000, 9_999, WHOLE_BPS])
def test_share_is_what_it_says(share_bps: int) -> None:
    drawn = sum(draws(ticket, share_bps) for ticket in TICKETS)
    # Five standard deviations of a fair draw.
    spread = 5 * (len(TICKETS) * share_bps * (WHOLE_BPS - share_bps)) ** 0.5 / WHOLE_BPS
    assert abs(drawn - len(TICKETS) * share_bps / WHOLE_BPS) <= spread


def test_larger_share_keeps_all_of_a_smaller_one() -> None:
    small = {ticket for ticket in TICKETS if draws(ticket, 500)}
    assert small < {ticket for ticket in TICKETS if draws(ticket, 2_500)}

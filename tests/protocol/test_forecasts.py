"""How long money lasts: by the last hour where it tells, else by the last day, else not at all."""

import pytest

from marketplace.protocol.forecasts import DAY_SECONDS, HOUR_SECONDS, Forecast, forecast, spent_in

NOW = 1_800_000_000


def told(*moves: tuple[int, int], left_atoms: int | None = 1_000, ends_at: int | None = None) -> Forecast:
    """From (seconds ago, atoms)."""
    found = [(NOW - ago, atoms) for ago, atoms in moves]
    hour, day = (spent_in(found, seconds, NOW) for seconds in (HOUR_SECONDS, DAY_SECONDS))
    return forecast(hour, day, left_atoms=left_atoms, now=NOW, ends_at=ends_at)


def test_busy_hour_decides_and_the_day_before_does_not() -> None:
    found = told((80_000, 90_000), (3_000, 100), (2_000, 100), (1_000, 100))
    assert (found.based_on_seconds, found.atoms_per_hour) == (3_000, 300 * 3_600 // 3_000)
    assert (found.empty_in_seconds, found.empty_at, found.ends_by) == (10_000, NOW + 10_000, "money")
    assert (found.hour.atoms, found.day.atoms, found.day.times) == (300, 90_300, 4)


def test_quiet_hour_leaves_it_to_the_day() -> None:
    found = told((80_000, 300), (50_000, 300), (100, 200))
    assert (found.based_on_seconds, found.empty_in_seconds) == (80_000, 100_000)


@pytest.mark.parametrize("moves", [(), ((10, 500),), ((10, 500), (20, 500))])
def test_too_few_purchases_are_no_rate(moves: tuple[tuple[int, int], ...]) -> None:
    found = told(*moves, ends_at=NOW + 5)
    assert (found.based_on_seconds, found.atoms_per_hour, found.empty_at, found.ends_by) == (None,) * 4
    assert found.day.times == len(moves)


def test_burst_of_a_moment_counts_for_a_minute_at_least() -> None:
    found = told((0, 100), (0, 100), (0, 100))
    assert (found.based_on_seconds, found.empty_in_seconds) == (60, 200)


@pytest.mark.parametrize(
    ("ends_in", "first"), [(None, "money"), (10_001, "money"), (10_000, "time"), (1, "time")]
)
def test_what_ends_first_is_named(ends_in: int | None, first: str) -> None:
    ends_at = None if ends_in is None else NOW + ends_in
    assert told((3_000, 100), (2_000, 100), (1_000, 100), ends_at=ends_at).ends_by == first


def test_nothing_left_is_empty_now_whatever_the_rate() -> None:
    found = told(left_atoms=0)
    assert (found.empty_in_seconds, found.ends_by) == (0, "money")


def test_free_or_unbounded_work_ends_by_time_alone() -> None:
    free = told((3, 0), (2, 0), (1, 0), ends_at=NOW + 9)
    assert (free.atoms_per_hour, free.empty_at, free.ends_by) == (0, None, "time")
    unbounded = told((3, 5), (2, 5), (1, 5), left_atoms=None)
    assert (unbounded.empty_at, unbounded.ends_by) == (None, None)


def test_purchases_of_the_future_and_of_yesterday_do_not_count() -> None:
    assert told((DAY_SECONDS, 5), (-1, 5)).day.times == 0


def test_json_has_whole_numbers_and_amounts_as_text() -> None:
    assert told((3_000, 100), (2_000, 100), (1_000, 100), ends_at=NOW + 5).to_json() == {
        "spent_last_hour_atoms": "300",
        "spent_last_day_atoms": "300",
        "purchases_last_day": 3,
        "based_on_seconds": 3_000,
        "atoms_per_hour": "360",
        "empty_in_seconds": 10_000,
        "empty_at": NOW + 10_000,
        "ends_at": NOW + 5,
        "ends_by": "time",
    }

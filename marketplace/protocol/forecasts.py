"""How long money lasts at the present rate. Whole numbers only, and no guess from a purchase or two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400
# Fewer purchases are no rate.
LEAST_TIMES: Final = 3
# Nor is what was bought within a moment.
_LEAST_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What was spent in a time up to now: how much, how often, and since when (Unix seconds)."""

    atoms: int = 0
    times: int = 0
    since: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When money or time ends, should it go on like this.

    Attributes:
        based_on_seconds: how long the purchases took that the rate is made of; None: too few to tell.
        atoms_per_hour: the rate, rounded down.
        empty_at: Unix seconds when nothing is left at that rate; None: not to be told, or never.
        ends_at: when the time is over; None: never.
    """

    hour: Spent
    day: Spent
    now: int
    based_on_seconds: int | None
    atoms_per_hour: int | None
    empty_at: int | None
    ends_at: int | None

    @property
    def empty_in_seconds(self) -> int | None:
        """The same from now on."""
        return None if self.empty_at is None else self.empty_at - self.now

    @property
    def ends_by(self) -> str | None:
        """What ends first, `money` or `time`; None where that is not to be told, or nothing ends."""
        if self.empty_at is not None and (self.ends_at is None or self.empty_at < self.ends_at):
            return "money"
        told = self.empty_at is not None or self.atoms_per_hour is not None
        return "time" if told and self.ends_at is not None else None

    def to_json(self) -> dict[str, Any]:
        """For programs; amounts as text."""
        rate = self.atoms_per_hour
        return {
            "spent_last_hour_atoms": str(self.hour.atoms),
            "spent_last_day_atoms": str(self.day.atoms),
            "purchases_last_day": self.day.times,
            "based_on_seconds": self.based_on_seconds,
            "atoms_per_hour": None if rate is None else str(rate),
            "empty_in_seconds": self.empty_in_seconds,
            "empty_at": self.empty_at,
            "ends_at": self.ends_at,
            "ends_by": self.ends_by,
        }


def forecast(hour: Spent, day: Spent, *, left_atoms: int | None, now: int, ends_at: int | None) -> Forecast:
    """By the last hour where enough was bought in it, else by the last day; `left_atoms` None: no bound."""
    basis = next((spent for spent in (hour, day) if spent.times >= LEAST_TIMES), None)
    # From the first purchase on: an agent that began a moment ago has not spent slowly for a day.
    took = None if basis is None or basis.since is None else max(_LEAST_SECONDS, now - basis.since)
    return Forecast(
        hour=hour,
        day=day,
        now=now,
        based_on_seconds=took,
        atoms_per_hour=None if basis is None or took is None else basis.atoms * HOUR_SECONDS // took,
        empty_at=_empty_at(basis, took, left_atoms, now),
        ends_at=ends_at,
    )


def spent_in(moves: Iterable[tuple[int, int]], seconds: int, now: int) -> Spent:
    """From (Unix seconds, atoms) of each purchase: what falls into the last so many seconds."""
    found = [(at, atoms) for at, atoms in moves if now - seconds < at <= now]
    return Spent(
        atoms=sum(atoms for _, atoms in found),
        times=len(found),
        since=min((at for at, _ in found), default=None),
    )


def _empty_at(basis: Spent | None, took: int | None, left_atoms: int | None, now: int) -> int | None:
    if left_atoms is None:
        return None
    if left_atoms <= 0:
        return now
    if basis is None or took is None or basis.atoms == 0:
        return None
    return now + left_atoms * took // basis.atoms

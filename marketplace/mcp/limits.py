"""What the user lets an agent spend without being asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from marketplace.client.problems import GatewayTrouble
from marketplace.mcp.shop import Currency
from marketplace.protocol import patterns
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """Limits as the user wrote them, amounts in token units; None: none."""

    per_job: str | None = None
    budget: str | None = None
    models: str | None = None


class Limits:
    """The user's limits, and what was spent under them.

    The chain's own limits hold besides: this object can only be stricter.
    """

    def __init__(self, words: Words, currency: Currency, granted: Sequence[str] = ()) -> None:
        """`granted` are the models that the key's grant lists; none: any."""
        self._models, self._granted, self._currency = words.models, granted, currency
        self.per_job_atoms = None if words.per_job is None else currency.atoms(words.per_job)
        self.spent_atoms = 0
        self._budget_atoms = None if words.budget is None else currency.atoms(words.budget)
        self._held_atoms = 0

    @property
    def left_atoms(self) -> int | None:
        """What of the budget is neither spent nor held for a running job; None without a budget."""
        if self._budget_atoms is None:
            return None
        return max(0, self._budget_atoms - self.spent_atoms - self._held_atoms)

    @property
    def cap_atoms(self) -> int | None:
        """Most that one more job may cost unasked; None: anything."""
        known = [atoms for atoms in (self.per_job_atoms, self.left_atoms) if atoms is not None]
        return min(known, default=None)

    @property
    def models(self) -> str | None:
        """Names of models the agent may use, as the user wrote them; None: any."""
        granted = ", ".join(self._granted)
        return f"{self._models} of {granted}" if self._models and granted else self._models or granted or None

    def permits(self, *names: str) -> bool:
        """Whether a model of these names is one the agent may use."""
        wanted = () if self._models is None else (self._models,)
        return patterns.allows(wanted, *names) and patterns.allows(self._granted, *names)

    @contextmanager
    def holding(self, atoms: int, *, allowed: bool) -> Iterator[Held]:
        """Sets money aside while a job runs; `allowed` by the user it may go beyond the limits.

        What becomes of a job that is cut off is not known yet, so all of it counts as spent.

        Raises:
            BadRequest: other jobs hold what was left when this one was planned.
        """
        cap = self.cap_atoms
        if not allowed and cap is not None and atoms > cap:
            raise BadRequest(
                ErrorCode.PRICE_ABOVE_MAX,
                f"This may cost {self._currency.show(atoms)};"
                f" jobs that run now leave {self._currency.bare(cap)}.",
                hint="Wait until they are done, or name a lower max_cost.",
            )
        held = Held(atoms)
        self._held_atoms += atoms
        try:
            yield held
        except GatewayTrouble:
            raise
        except WattError as error:
            held.cost_atoms = atoms if getattr(error, "charged", False) else 0
            raise
        finally:
            self._held_atoms -= atoms
            self.spent_atoms += held.cost_atoms


class Held:
    """Money set aside for a running job; `cost_atoms` is what it turned out to cost."""

    __slots__ = ("cost_atoms",)

    def __init__(self, cost_atoms: int) -> None:
        self.cost_atoms = cost_atoms


def names_of(row: dict[str, Any]) -> list[str]:
    """Every name of a row of `GET /v1/models`."""
    return [str(row["id"]), *(str(alias["alias"]) for alias in row.get("aliases") or [])]

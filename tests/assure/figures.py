"""Figures with their goals, as one table and as one file."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

_RELATIONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "=": operator.eq,
    "≥": operator.ge,
    "≤": operator.le,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured number. `goal` is a relation and a bound ("≥ 98"); empty for what only informs."""

    name: str
    value: float
    unit: str = ""
    goal: str = ""
    why: tuple[str, ...] = ()
    """What is in the way of the goal, a line each."""

    @property
    def met(self) -> bool:
        """Whether the value reaches its goal."""
        if not self.goal:
            return True
        relation, bound = self.goal.split()
        return _RELATIONS[relation](self.value, float(bound))

    def row(self) -> dict[str, Any]:
        """As it is written to the file."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "goal": self.goal,
            "met": self.met,
        }


def digits(value: float) -> float:
    """Three significant digits: more would claim to be measured better than it was."""
    return float(f"{value:.3g}")


def figure_of(row: Mapping[str, Any]) -> Figure:
    """A figure from the row that its maker gives; whether it is met is judged here again."""
    return Figure(name=row["name"], value=row["value"], unit=row["unit"], goal=row["goal"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one part measured, and how long that took."""

    name: str
    figures: tuple[Figure, ...]
    seconds: float

    @property
    def met(self) -> bool:
        """Whether every figure reaches its goal; a part without figures has shown nothing."""
        return bool(self.figures) and all(figure.met for figure in self.figures)


def percent(part: int, whole: int) -> float:
    """Percentage with two digits, rounded down: 100 only when nothing is missing."""
    return 100.0 if part == whole else (part * 10_000 // whole) / 100


def table(parts: Iterable[Part]) -> str:
    """All figures, and below each missed one what is in its way."""
    parts = list(parts)
    width = max([10, *(len(part.name) for part in parts)])
    lines = [f"  {'part':<{width}} {'figure':<46}{'value':>12} {'unit':<10}{'goal':>9}"]
    for part in parts:
        for figure in part.figures:
            mark = "✓" if figure.met else "✗"
            value = f"{figure.value:>12,.10g}"
            line = f"{mark} {part.name:<{width}} {figure.name:<46}{value} {figure.unit:<10}{figure.goal:>9}"
            lines.append(line.rstrip())
            lines += [f"    {reason}" for reason in figure.why if not figure.met]
        lines.append(f"{'✓' if part.met else '✗'} {part.name:<{width}} took {part.seconds:.0f} s")
    return "\n".join(lines)

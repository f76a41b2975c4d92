"""Whether a step of a flow runs: one comparison of an earlier answer, a table in the file. No expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from marketplace.client import templates
from marketplace.protocol.errors import BadRequest, ErrorCode

VALUE: Final = "value"


def _contains(found: Any, wanted: Any) -> bool:
    """A text in a text, whatever its case, or one of a list."""
    if isinstance(found, list):
        return wanted in found
    return str(wanted).casefold() in str(found).casefold()


# What each test is called in the file, how it reads, and what it does.
TESTS: Final[dict[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "is": ("is", lambda found, wanted: bool(found == wanted)),
    "is_not": ("is not", lambda found, wanted: bool(found != wanted)),
    "contains": ("contains", _contains),
    "above": ("is above", lambda found, wanted: _number(found) > wanted),
    "below": ("is below", lambda found, wanted: _number(found) < wanted),
}
_OF_NUMBERS: Final = frozenset({"above", "below"})


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """What has to hold: `value`, a template, compared with `wanted`."""

    value: str
    test: str
    wanted: Any

    def why_not(self, values: Mapping[str, Any]) -> str | None:
        """Why it does not hold; None when it does.

        Raises:
            BadRequest: a number is wanted, and the value is none.
        """
        found = templates.fill(self.value, values)
        words, holds = TESTS[self.test]
        return (
            None
            if holds(found, self.wanted)
            else f"{self.value} {words} {self.wanted!r}: no, {_short(found)}"
        )


def read(table: Mapping[str, Any]) -> When:
    """The condition of a table that has no problem."""
    test = next(name for name in TESTS if name in table)
    return When(value=table[VALUE], test=test, wanted=table[test])


def problem_of(table: Any) -> str | None:
    """Why a table is no condition; None when it is one."""
    if not isinstance(table, dict) or not isinstance(table.get(VALUE), str):
        return 'when is a table such as { value = "{moods.label}", is = "good" }'
    tests = [name for name in table if name != VALUE]
    if len(tests) != 1 or tests[0] not in TESTS:
        return f"when compares its value in one way: {', '.join(TESTS)}"
    wanted = table[tests[0]]
    if tests[0] in _OF_NUMBERS and (isinstance(wanted, bool) or not isinstance(wanted, int | float)):
        return f"when: {tests[0]} takes a number"
    if not isinstance(wanted, str | int | float):
        return f"when: {tests[0]} takes a text, a number, true or false"
    return None


def _number(found: Any) -> float:
    try:
        if not isinstance(found, bool):
            return float(found)
    except (TypeError, ValueError):
        pass
    raise BadRequest(ErrorCode.INVALID_REQUEST, f"when: {_short(found)} is no number")


def _short(found: Any) -> str:
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}…"

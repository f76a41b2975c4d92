"""Which names a list of patterns allows: `tiny-*` as shells write it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

MOST: Final = 32
MOST_LETTERS: Final = 128


def allows(patterns: Sequence[str], *names: str) -> bool:
    """Whether one of the names fits one of the patterns; no patterns: any name."""
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def problem_of(patterns: Sequence[str]) -> str:
    """Why a list of patterns cannot be kept; "" when it can."""
    if len(patterns) > MOST:
        return f"at most {MOST} patterns"
    for pattern in patterns:
        if not 0 < len(pattern) <= MOST_LETTERS or not pattern.isprintable() or pattern != pattern.strip():
            return f"a pattern is 1 to {MOST_LETTERS} printable characters, as tiny-*"
    return ""

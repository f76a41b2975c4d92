"""Rows of a mapped file that one job answers together: short texts to embed, many in one call's `input`.

A job is known by the rows it has, so that a run that goes on finds the answer, or the open order, of the very
rows it was for. Rows that have neither are packed anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from marketplace.client.asks import Ask
from marketplace.client.recipes import digest_of
from marketplace.client.rows import Row
from marketplace.client.workbook import Name
from marketplace.protocol.answers import Answer
from marketplace.protocol.payloads import BLANK_MODEL, Payload, task_type

_TASK: Final = "embed"
_MOST_ROWS: Final = 64
_MOST_BYTES: Final = 16_384
# A text of this size is worth a job of its own; waiting for it would hold up the short ones.
_SHORT_BYTES: Final = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedRow:
    """A row and what it asks; `name` is what it is known by when it stands alone."""

    row: Row
    ask: Ask
    name: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """One job: a row, or several in the order of the file."""

    rows: tuple[AskedRow, ...]
    ask: Ask
    name: Name

    def shown(self, answer: Answer) -> Iterator[tuple[AskedRow, dict[str, Any]]]:
        """Each row with its part of the answer, as JSON."""
        whole = task_type(self.ask.task).shown(answer)
        if len(self.rows) == 1:
            yield self.rows[0], whole
            return
        start = 0
        for each in self.rows:
            end = start + len(each.ask.body["input"])
            yield each, {"embeddings": whole["embeddings"][start:end]}
            start = end

    def shares(self, atoms: int) -> list[int]:
        """What each row is counted for of what the job cost: equal shares, whose sum is all of it."""
        share, rest = divmod(atoms, len(self.rows))
        return [share + (place < rest) for place in range(len(self.rows))]


def packed(asked: Sequence[AskedRow], known: Iterable[Name]) -> tuple[Pack, ...]:
    """All rows as jobs, in the order of their first rows; `known` are jobs that were ordered before."""
    rows = {each.row.number: each for each in asked}
    packs: list[Pack] = []
    for name in known:
        numbers = _numbers(name.unit)
        if all(number in rows for number in numbers):
            pack = _pack([rows[number] for number in numbers])
            # The record may be of other answers to rows of these numbers: only the same question counts.
            if pack.name == name:
                packs.append(pack)
                for number in numbers:
                    del rows[number]
    packs += [_pack(group) for group in _groups(rows.values())]
    return tuple(sorted(packs, key=lambda pack: pack.rows[0].row.number))


def _groups(rows: Iterable[AskedRow]) -> Iterator[list[AskedRow]]:
    group: list[AskedRow] = []
    size = 0
    for each in rows:
        payload = each.ask.payload(BLANK_MODEL)
        if not _is_short(payload):
            yield [each]
            continue
        if group and (len(group) == _MOST_ROWS or size + payload.most_units_in > _MOST_BYTES):
            yield group
            group, size = [], 0
        group.append(each)
        size += payload.most_units_in
    if group:
        yield group


def _is_short(payload: Payload) -> bool:
    """A blank text is refused by nodes, with all that is asked beside it."""
    texts = getattr(payload, "input", ())
    return (
        payload.task == _TASK
        and payload.most_units_in <= _SHORT_BYTES
        and all(text.strip() for text in texts)
    )


def _pack(rows: Sequence[AskedRow]) -> Pack:
    first = rows[0]
    if len(rows) == 1:
        return Pack(rows=(first,), ask=first.ask, name=first.name)
    texts = [text for each in rows for text in each.ask.body["input"]]
    ask = replace(first.ask, body={"input": texts})
    return Pack(
        rows=tuple(rows),
        ask=ask,
        name=Name(_unit([each.row.number for each in rows]), digest_of(ask)),
    )


def _unit(numbers: Sequence[int]) -> str:
    """Rising numbers as a text, as in `1-3,7`."""
    starts = [numbers[0], *(after for before, after in pairwise(numbers) if after != before + 1)]
    ends = [*(before for before, after in pairwise(numbers) if after != before + 1), numbers[-1]]
    return ",".join(f"{a}-{b}" if a != b else str(a) for a, b in zip(starts, ends, strict=True))


def _numbers(unit: str) -> list[int]:
    """The numbers behind such a text."""
    found: list[int] = []
    for part in unit.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found

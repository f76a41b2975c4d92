"""Mutants of a source file: made from its syntax tree, named for good, drawn by seed."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from tests.assure.mutants.operators import Edit, edits
from tests.assure.mutants.tree import Node, Source, relations, visit


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One edit of one file: the lines it touches, as they were and as they are, and all the text after it."""

    id: str
    file: str
    function: str
    line: int
    operator: str
    before: str
    after: str
    text: str


def mutants(asts: dict[str, Node], sources: dict[str, str]) -> dict[str, list[Mutant]]:
    """Every mutant by file, in order of the text."""
    kin = relations(list(asts.values()))
    return {
        name: mutants_of(Source(name=name, code=sources[name].encode(), ast=ast, kin=kin))
        for name, ast in asts.items()
    }


def mutants_of(source: Source) -> list[Mutant]:
    """Every mutant of one file; each text once."""
    found: dict[str, Mutant] = {}
    named: Counter[str] = Counter()
    for node, place in visit(source.ast):
        for edit in edits(source, node, place):
            made = _made(source, edit, place.name, named)
            if made.text != source.code.decode():
                found.setdefault(made.text, made)
    return sorted(found.values(), key=lambda m: m.line)


def drawn(by_file: dict[str, list[Mutant]], seed: int) -> list[Mutant]:
    """All mutants in the order they are tried; any beginning of it holds each file in proportion."""
    places: list[tuple[float, Mutant]] = []
    for name in sorted(by_file):
        chance = random.Random(f"{seed} {name}")  # noqa: S311 - a sample that can be drawn again
        order = sorted(by_file[name], key=lambda m: m.id)
        chance.shuffle(order)
        shift = chance.random()
        places += [((at + shift) / len(order), mutant) for at, mutant in enumerate(order)]
    return [mutant for _, mutant in sorted(places, key=lambda place: (place[0], place[1].id))]


def proportions(chosen: Iterable[Mutant]) -> dict[str, int]:
    """How many of each operator."""
    return dict(sorted(Counter(m.operator for m in chosen).items()))


def _made(source: Source, edit: Edit, function: str, named: Counter[str]) -> Mutant:
    operator, start, end, new = edit
    first = source.code.rfind(b"\n", 0, start) + 1
    last = source.code.find(b"\n", end)
    last = len(source.code) if last < 0 else last
    before = source.text(first, last)
    after = source.text(first, start) + new + source.text(end, last)
    # Line numbers are no part of the name, so that it outlives edits elsewhere in the file.
    key = "\0".join((source.name, function, _squeezed(before), _squeezed(after)))
    named[key] += 1
    digest = hashlib.sha256(f"{key}\0{named[key]}".encode()).hexdigest()
    return Mutant(
        id=digest[:12],
        file=source.name,
        function=function,
        line=source.code.count(b"\n", 0, start) + 1,
        operator=operator,
        before=_squeezed(before),
        after=_squeezed(after),
        text=source.text(0, start) + new + source.text(end, len(source.code)),
    )


def _squeezed(lines: str) -> str:
    return " ".join(lines.split())

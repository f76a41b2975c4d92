"""Which mutants count: those that compile into bytecode unlike the original's and unlike each other's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from itertools import islice

from tests.assure.mutants.bench import Code, fingerprint
from tests.assure.mutants.mutant import Mutant


@dataclass(slots=True, kw_only=True)
class Selection:
    """The mutants taken, in order, and how many were passed over and why."""

    taken: list[Mutant] = field(default_factory=list)
    drawn: int = 0
    broken: int = 0
    equal: int = 0
    repeated: int = 0


def select(
    candidates: Iterable[Mutant],
    count: int,
    build: Callable[[Mutant], Code | None],
    original: Callable[[Mutant], str],
    pool: Executor,
    ahead: int,
) -> Iterator[Selection]:
    """Yields after each candidate, until `count` are taken or none is left.

    `original` is the fingerprint of the unchanged code that a mutant's is compared with. Builds run `ahead`
    at a time, but are looked at in the candidates' order, so that the choice depends on nothing else.
    """
    chosen, seen = Selection(), set[str]()
    for mutant, code in _in_order(candidates, build, pool, ahead):
        if len(chosen.taken) == count:
            return
        chosen.drawn += 1
        mark = fingerprint(code) if code is not None else ""
        if code is None:
            chosen.broken += 1
        elif mark == original(mutant):
            chosen.equal += 1
        elif mark in seen:
            chosen.repeated += 1
        else:
            seen.add(mark)
            chosen.taken.append(mutant)
        yield chosen
        if len(chosen.taken) == count:
            return


def _in_order(
    candidates: Iterable[Mutant], build: Callable[[Mutant], Code | None], pool: Executor, ahead: int
) -> Iterator[tuple[Mutant, Code | None]]:
    rest = iter(candidates)
    waiting: list[tuple[Mutant, Future[Code | None]]] = []
    while True:
        waiting += [(m, pool.submit(build, m)) for m in islice(rest, ahead - len(waiting))]
        if not waiting:
            return
        mutant, built = waiting.pop(0)
        yield mutant, built.result()

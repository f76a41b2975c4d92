"""Which lines of assembly a test depends on: under the IR pipeline, coverage has no counters there.

Usage: python -m tests.assure.assembly [--jobs 2]

Changes one line at a time, and writes to docs/results/assembly.json which test failed for it. That is more
than a counter says: the line ran, and somebody looked at what it did. Of an `if`, both arms are forced. Where
a change passes every test, as one does that only costs gas, the line or the arm is made to revert: then a
test that fails has at least been there. What passes even so is a gap in coverage, to be explained there.
Takes about half an hour; a run that was cut short continues where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from tests.assure.figures import Figure, Part
from tests.assure.mutants.bench import OVERTIME
from tests.assure.mutants.mutant import Mutant
from tests.assure.mutation import Run, opened
from tests.assure.report import report
from tests.assure.tools import ROOT

RESULT: Final = ROOT / "docs" / "results" / "assembly.json"
_SEED: Final = 1  # of the fuzzer
_OPENS: Final = re.compile(r"assembly\b[^{]*\{$")
_ASSIGNED: Final = re.compile(r"((?:let )?\w+) := (.+)")
_IF: Final = re.compile(r"if (.+?) \{(.*)")
_LOOP: Final = re.compile(r"for \{\} (.+?) \{(.*)")
_CALL: Final = re.compile(r"\w+\(.*\)")


class Line(NamedTuple):
    """One line inside an assembly block; `code` is its text without indentation and comment."""

    file: str
    number: int
    code: str


class Told(NamedTuple):
    """What the committed result says of a line's text: how many such lines there were, and how many shown."""

    lines: int
    shown: int


def lines_of(file: str, source: str) -> list[Line]:
    """Every line inside the file's assembly blocks that has code on it."""
    found: list[Line] = []
    depth = 0
    for number, text in enumerate(source.splitlines(), 1):
        code = text.partition("//")[0].strip()
        if depth:
            depth += code.count("{") - code.count("}")
            if depth and code.strip("}"):
                found.append(Line(file, number, code))
        elif _OPENS.search(code):
            depth = 1
    return found


def changes(code: str) -> list[list[str]]:
    """What to put in the line's place. Of each inner list, one must make a test fail.

    Labels and declarations without a value carry no code, and have none.
    """
    if found := _IF.fullmatch(code):
        return [[f"if {arm} {{{found[2]}"] for arm in ("0", "1")]
    if found := _LOOP.fullmatch(code):
        return [[f"for {{}} 0 {{{found[2]}"]]
    if found := _ASSIGNED.fullmatch(code):
        name, value = found.groups()
        return [[f"{name} := {other}" for other in (f"add({value}, 1)", f"not({value})", "0")]]
    return [["{}"]] if _CALL.fullmatch(code) else []


def probe(code: str, survivor: str) -> str:
    """What reverts where the line runs; of an `if`, in the arm that `survivor` never took."""
    found = _IF.fullmatch(code)
    if not found:
        return f"if 1 {{ revert(0, 0) }} {code}"
    condition = found[1] if survivor.startswith("if 0 ") else f"iszero({found[1]})"
    return f"if {condition} {{ revert(0, 0) }} {code}"


def shown(result: Mapping[str, Any], sources: Mapping[str, list[str]]) -> set[tuple[str, str]]:
    """Lines (file, text) that the result shows wherever they stand; the text is as in `sources`, stripped.

    A line is shown when each change of it fails a test, or reverting in its place does.
    """
    told: dict[tuple[str, str], Told] = {}
    for row in result["lines"]:
        key = (row["file"], row["code"])
        lines, known = told.get(key, Told(0, 0))
        told[key] = Told(lines + 1, known + _is_shown(row))
    standing = Counter[tuple[str, str]]()
    texts: dict[tuple[str, str], set[str]] = {}
    for file, source in sources.items():
        for line in lines_of(file, "\n".join(source)):
            standing[file, line.code] += 1
            texts.setdefault((file, line.code), set()).add(source[line.number - 1])
    proven = (key for key, count in standing.items() if told.get(key) == Told(count, count))
    return {(key[0], text) for key in proven for text in texts[key]}


def tried(run: Run, line: Line, source: str) -> dict[str, Any]:
    """The row of one line: for each change that failed a test, which; and those that passed them all."""

    def failed(new: str) -> str:
        by = run.judge_one(_mutant(line, source, new)).killed_by
        # A busy machine runs out of time too: that shows nothing.
        return "" if by.startswith(OVERTIME) else by

    killed: dict[str, str] = {}
    survived: list[str] = []
    for alternatives in changes(line.code):
        for new in alternatives:
            if by := failed(new):
                killed[new] = by
                break
        else:
            survived += alternatives
    been = {new: by for new in survived if (by := failed(probe(line.code, new)))}
    row = {"file": line.file, "code": line.code, "killed": killed, "survived": survived, "been": been}
    print(
        f"{line.file}:{line.number} {'shown' if _is_shown(row) else 'not run'}: {line.code}", file=sys.stderr
    )
    return row


def main(arguments: Iterable[str]) -> None:
    """Writes what was found; coverage judges it."""
    parser = argparse.ArgumentParser(prog="python -m tests.assure.assembly", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="workers, under 1 GB each")
    jobs = parser.parse_args(list(arguments)).jobs
    with opened(ROOT, ROOT / "build" / "assembly", _SEED, jobs) as (run, by_file):
        sources = {file: (ROOT / file).read_text() for file in sorted(by_file)}
        lines = [line for file, source in sources.items() for line in lines_of(file, source)]
        with ThreadPoolExecutor(jobs) as pool:
            rows = list(pool.map(lambda line: tried(run, line, sources[line.file]), lines))
    alive = tuple(f"{row['file']}: {row['code']}" for row in rows if row["survived"])
    unseen = tuple(f"{row['file']}: {row['code']}" for row in rows if not _is_shown(row))
    figures = (
        Figure(name="lines of assembly", value=len(rows), goal="≥ 1"),
        Figure(name="lines whose change fails no test", value=len(alive), why=alive),
        Figure(name="of these, lines or arms no test runs", value=len(unseen), why=unseen),
    )
    told = {**report([Part(name="assembly", figures=figures, seconds=0)]), "lines": rows}
    RESULT.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _is_shown(row: Mapping[str, Any]) -> bool:
    return set(row["survived"]) <= row["been"].keys()


def _mutant(line: Line, source: str, new: str) -> Mutant:
    lines = source.splitlines(keepends=True)
    old = lines[line.number - 1]
    lines[line.number - 1] = old.replace(line.code, new, 1)
    text = "".join(lines)
    return Mutant(
        id=hashlib.sha256(f"{line.file}\0{text}".encode()).hexdigest()[:12],
        file=line.file,
        function="assembly",
        line=line.number,
        operator="line",
        before=line.code,
        after=new,
        text=text,
    )


if __name__ == "__main__":
    main(sys.argv[1:])

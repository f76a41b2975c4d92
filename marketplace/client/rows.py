"""Rows of a file: JSON lines, CSV with a heading, or plain text; what cannot be read is told by its line."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from marketplace.protocol.errors import BadRequest, ErrorCode

_MOST_CELL: Final = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row; `number` counts rows from 1, `line` is where it stands in the file."""

    number: int
    line: int
    values: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row that cannot be asked, and why."""

    number: int
    line: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A file's rows and the digest of its bytes."""

    digest: str
    good: list[Row]
    bad: list[BadRow]


_Line = tuple[int, dict[str, Any] | str]


def read_rows(path: Path) -> Rows:
    """All rows of a file. Its ending says what it is: `.csv`, `.txt` (a line a text), else JSON lines.

    Raises:
        BadRequest: it cannot be read, or has no row.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRequest(
            ErrorCode.NOT_FOUND,
            f"{path} cannot be read ({error.strerror}).",
            hint="Name a file: going on after a stop needs the same rows again.",
        ) from error
    readers: dict[str, Callable[[bytes], Iterator[_Line]]] = {".csv": _csv, ".txt": _texts}
    good: list[Row] = []
    bad: list[BadRow] = []
    for number, (line, found) in enumerate(readers.get(path.suffix.lower(), _json_lines)(data), 1):
        if isinstance(found, str):
            bad.append(BadRow(number=number, line=line, why=found))
        else:
            good.append(Row(number=number, line=line, values=found))
    if not good and not bad:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{path} has no row.", hint="Give it a row a line.")
    return Rows(digest=hashlib.sha256(data).hexdigest(), good=good, bad=bad)


def _json_lines(data: bytes) -> Iterator[_Line]:
    for line, raw in enumerate(data.split(b"\n"), 1):
        if raw.strip():
            yield line, _json_row(raw)


def _json_row(raw: bytes) -> dict[str, Any] | str:
    try:
        # Not Python's own reader: where another package has raised the recursion limit, deep data kills it.
        found = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        return f"not JSON ({str(error).replace(' at line 1 column', ', column')})"
    if isinstance(found, str):
        return {"text": found}
    return found if isinstance(found, dict) else "neither an object nor a text"


def _texts(data: bytes) -> Iterator[_Line]:
    for line, raw in enumerate(data.split(b"\n"), 1):
        if raw.strip():
            try:
                yield line, {"text": raw.decode().rstrip("\r")}
            except UnicodeDecodeError:
                yield line, "not text in UTF-8"


def _csv(data: bytes) -> Iterator[_Line]:
    try:
        # A byte-order mark is what spreadsheets write; it is no part of the first name.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"the file is not text in UTF-8 ({error})", hint="Save it as UTF-8."
        ) from error
    csv.field_size_limit(_MOST_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        heading = next(reader, [])
        for cells in reader:
            if not cells:
                continue
            fits = len(cells) == len(heading)
            wrong = f"{len(cells)} cells below a heading of {len(heading)}"
            yield reader.line_num, dict(zip(heading, cells, strict=True)) if fits else wrong
    except csv.Error as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"line {reader.line_num} of the CSV cannot be read: {error}",
            hint="Mind the quotation marks.",
        ) from error

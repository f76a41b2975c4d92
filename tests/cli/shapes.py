"""What `--json` gives, by command: every object that a test sees is held against its committed schema."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import jsonschema
import typer

from tests.house.tree import ROOT

SCHEMAS = ROOT / "docs" / "reference" / "json"


def run(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of one line of `watt`, of which the JSON has its shape."""
    from marketplace.cli.app import invoke

    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = int(invoke(arguments))
    look(arguments, out.getvalue())
    return code, out.getvalue(), err.getvalue()


def look(arguments: Sequence[str], out: str) -> None:
    """Holds what a run of `watt` printed against the schema of its command, or of errors."""
    if "--json" not in arguments or not out.strip():
        return
    found = json.loads(out)
    check("error" if set(found) == {"error"} else command_of(arguments), found)


def check(command: str, found: Any) -> None:
    """Raises where an object is not what its command's schema says."""
    jsonschema.validate(found, schema(command), cls=jsonschema.Draft202012Validator)


@functools.cache
def schema(command: str) -> Any:
    """The committed schema of a command such as `receipt verify`."""
    return json.loads(place(command).read_text())


def place(command: str) -> Path:
    return SCHEMAS / f"{command.replace(' ', '-')}.json"


def command_of(arguments: Sequence[str]) -> str:
    """The command that a line names, groups and all."""
    at, path = tree(), []
    for word in arguments:
        child = (getattr(at, "commands", None) or {}).get(word)
        if child is None:
            break
        at, path = child, [*path, word]
    return " ".join(path)


@functools.cache
def tree() -> Any:
    from marketplace.cli.app import build

    return typer.main.get_command(build())

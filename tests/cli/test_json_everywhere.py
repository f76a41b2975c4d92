"""Every command gives JSON of a committed shape, and ends with a documented code."""

from __future__ import annotations

import jsonschema
import pytest

from marketplace.cli.exits import Exit, exit_of
from marketplace.protocol.errors import ErrorCode, WattError
from tests.cli import shapes
from tests.house import reference
from tests.house.tree import ROOT

# A line an event, and a log: no one object.
STREAMS = {"up", "node start"}
COMMANDS = {path.removeprefix("watt "): command for path, command in reference.commands()}


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - STREAMS))
def test_command_gives_json_of_a_committed_shape(command: str) -> None:
    assert "--json" in [option for parameter in COMMANDS[command].params for option in parameter.opts]
    jsonschema.Draft202012Validator.check_schema(shapes.schema(command))
    assert shapes.schema(command)["title"] == f"watt {command}"


def test_no_shape_is_left_of_a_command_that_is_gone() -> None:
    known = {shapes.place(command).name for command in {*COMMANDS, "error"}}
    assert {path.name for path in shapes.SCHEMAS.iterdir()} - known == set()


def test_shape_refuses_what_is_not_of_it() -> None:
    good = {"drained": True, "pid": 7}
    shapes.look(["node", "drain", "--json"], '{"drained": true, "pid": 7}')
    for bad in ({**good, "more": 1}, {"drained": True}, {**good, "pid": "7"}):
        with pytest.raises(jsonschema.ValidationError):
            shapes.check("node drain", bad)


def test_every_exit_code_is_documented_with_the_errors_behind_it() -> None:
    page = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for code in Exit:
        assert f"| {int(code)} |" in page
    for error in ErrorCode:
        (row,) = [
            line for line in page.splitlines() if line.startswith(f"| {int(exit_of(WattError(error)))} |")
        ]
        assert f"`{error.value}`" in row

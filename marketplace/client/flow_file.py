"""A flow: steps in a TOML file, each one paid job or one for each item of a list, fed by inputs and others.

Everything that can be wrong with a file is found here, before anything is bought.
"""

from __future__ import annotations

import graphlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from marketplace.client import conditions, templates
from marketplace.client.conditions import When
from marketplace.client.outputs import ITEMS, OUTPUTS, gathered, stand_in
from marketplace.client.recipes import Recipe
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.payloads import BLANK_MODEL

_ID: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
_OWN: Final = frozenset({"item", "index"})
_TOP: Final = frozenset({"name", "cap", "inputs", "steps"})
_STEP: Final = frozenset({"id", "task", "model", "when", "for_each", "timeout_seconds", "input"})
_MOST_SECONDS: Final = 840


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        for_each: a template for a list, or a list; the step then runs once for each `{item}`.
        needs: steps whose outputs it reads.
        when: what has to hold for it to run; None: nothing.
    """

    id: str
    recipe: Recipe
    for_each: Any
    needs: frozenset[str]
    when: When | None = None

    @property
    def is_many(self) -> bool:
        """Whether it runs once for each item of a list."""
        return self.for_each is not None

    def items(self, values: Mapping[str, Any]) -> list[Any]:
        """What it runs for. Raises `BadRequest` where that is no list."""
        if not self.is_many:
            return [None]
        found = templates.fill(self.for_each, values)
        if not isinstance(found, list):
            raise _wrong(f"step {self.id}: for_each is no list, but {type(found).__name__}")
        return found

    def values(self, values: Mapping[str, Any], index: int, item: Any) -> Mapping[str, Any]:
        """What its templates may name, for one item."""
        return {**values, "item": item, "index": index} if self.is_many else values


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A file that holds together: steps in an order in which each follows what it needs.

    `inputs` are the defaults; an empty one has to be given. `cap` is as the file says it, in token units.
    """

    path: Path
    name: str
    cap: str | None
    inputs: Mapping[str, Any]
    steps: tuple[Step, ...]


class FlowErrors(BadRequest):
    """All that is wrong with a flow, each with its step."""

    def __init__(self, path: Path, errors: list[str]) -> None:
        super().__init__(
            ErrorCode.INVALID_REQUEST,
            f"{path} is no flow that can run: {'; '.join(errors)}.",
            hint="Correct it; watt flow check FILE looks again. Nothing was charged.",
        )
        self.errors = errors


def read_flow(path: Path) -> Flow:
    """The flow of a file.

    Raises:
        FlowErrors: with everything that is wrong with it.
        BadRequest: it cannot be read, or is no TOML.
    """
    data = _toml(path)
    errors = [f"unknown {name!r}" for name in data if name not in _TOP]
    inputs, rows = data.get("inputs", {}), data.get("steps", [])
    if (
        not isinstance(inputs, dict)
        or not isinstance(rows, list)
        or not all(isinstance(r, dict) for r in rows)
    ):
        raise FlowErrors(path, [*errors, "inputs is a table, steps are [[steps]]"])
    if not rows:
        errors.append("it has no [[steps]]")
    errors += _bad_names(inputs, rows)
    errors += [error for row in rows for error in _bad_step(row)]
    cap, name = data.get("cap"), data.get("name", path.stem)
    if not isinstance(cap, str | None) or not isinstance(name, str):
        errors.append('cap and name are text, as in cap = "0.10"')
    if errors:
        raise FlowErrors(path, errors)
    steps = {row["id"]: row for row in rows}
    errors = [error for row in rows for error in _bad_references(row, inputs, steps)]
    if errors:
        raise FlowErrors(path, errors)
    flow = Flow(path=path, name=name, cap=cap, inputs=inputs, steps=_ordered(path, steps))
    errors = list(_bad_requests(flow))
    if errors:
        raise FlowErrors(path, errors)
    return flow


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadRequest(
            ErrorCode.NOT_FOUND, f"{path} cannot be read ({error.strerror}).", hint="Check the path."
        ) from error
    except ValueError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST, f"{path} is no TOML: {error}.", hint="See examples/summarise.toml."
        ) from error


def _bad_names(inputs: dict[str, Any], rows: list[dict[str, Any]]) -> Iterator[str]:
    ids = [row.get("id") for row in rows]
    for name in [*inputs, *ids]:
        if not isinstance(name, str) or not _ID.fullmatch(name) or name in _OWN:
            yield f"{name!r} is no name: lower-case letters, digits, - and _, and neither item nor index"
    for name in sorted({str(name) for name in ids if ids.count(name) > 1}):
        yield f"two steps are called {name!r}"
    for name in sorted(set(inputs) & {str(name) for name in ids}):
        yield f"{name!r} is an input and a step"


def _bad_step(row: dict[str, Any]) -> Iterator[str]:
    named = f"step {row.get('id')}"
    yield from (f"{named}: unknown {name!r}" for name in row if name not in _STEP)
    if row.get("task") not in OUTPUTS:
        yield f"{named}: task is one of {', '.join(OUTPUTS)}"
    if not isinstance(row.get("model"), str) or not row["model"]:
        yield f"{named}: it names no model"
    if not isinstance(row.get("input"), dict) or not row["input"]:
        yield f"{named}: input is a table of the request's fields"
    if not isinstance(row.get("for_each", []), str | list):
        yield f"{named}: for_each is a list, or the {{name}} of one"
    if "when" in row and (problem := conditions.problem_of(row["when"])):
        yield f"{named}: {problem}"
    seconds = row.get("timeout_seconds", 120)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 1 <= seconds <= _MOST_SECONDS:
        yield f"{named}: timeout_seconds is a number from 1 to {_MOST_SECONDS}"


def _bad_references(
    row: dict[str, Any], inputs: dict[str, Any], steps: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Names that stand for nothing; a name of a step's output must be one its task has."""
    own = _OWN if "for_each" in row else frozenset[str]()
    for where, template, allowed in (
        ("when", row.get("when", {}).get(conditions.VALUE), frozenset[str]()),
        ("for_each", row.get("for_each"), frozenset[str]()),
        ("input", row["input"], own),
    ):
        try:
            named = list(templates.names(template))
        except BadRequest as error:
            yield f"step {row['id']}: {error.detail}"
            continue
        for name in named:
            first, _, rest = name.partition(".")
            if first in allowed or first in inputs:
                continue
            if first not in steps:
                known = ", ".join([*sorted(allowed), *inputs, *steps])
                yield f"step {row['id']}: {where} names {{{name}}}, which is none of {known}"
                continue
            fields = (*OUTPUTS[steps[first]["task"]], *((ITEMS,) if "for_each" in steps[first] else ()))
            if rest.partition(".")[0] not in fields:
                yield f"step {row['id']}: {{{name}}} is no output; {first} has {', '.join(fields)}"


def _ordered(path: Path, rows: Mapping[str, Mapping[str, Any]]) -> tuple[Step, ...]:
    needs = {
        name: frozenset(
            first
            for template in (row.get("for_each"), row["input"], row.get("when", {}).get(conditions.VALUE))
            for first in (found.partition(".")[0] for found in templates.names(template))
            if first in rows
        )
        for name, row in rows.items()
    }
    try:
        order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        # The sorter follows who needs whom, and names the first step of the circle again at its end.
        raise FlowErrors(
            path, [f"steps wait for each other in a circle: {' → '.join(error.args[1])}"]
        ) from error
    return tuple(_step(rows[name], needs[name]) for name in order)


def _step(row: Mapping[str, Any], needs: frozenset[str]) -> Step:
    recipe = Recipe(
        task=row["task"],
        model=row["model"],
        fields=row["input"],
        timeout_seconds=row.get("timeout_seconds", 120),
    )
    return Step(
        id=row["id"],
        recipe=recipe,
        for_each=row.get("for_each"),
        needs=needs,
        when=conditions.read(row["when"]) if "when" in row else None,
    )


def _bad_requests(flow: Flow) -> Iterator[str]:
    """Requests that no node would take, tried with inputs and answers made up."""
    values: dict[str, Any] = {name: _made_up(value) for name, value in flow.inputs.items()}
    for step in flow.steps:
        if not step.needs <= values.keys():
            continue  # What it needs is reported already.
        try:
            items = step.items(values) or [""]
            parts = [
                stand_in(step.recipe.ask(step.values(values, index, item)).payload(BLANK_MODEL))
                for index, item in enumerate(items)
            ]
        except BadRequest as error:
            yield error.detail if error.detail.startswith("step ") else f"step {step.id}: {error.detail}"
            continue
        values[step.id] = gathered(parts, items, step.recipe.task) if step.is_many else parts[0]


def _made_up(value: Any) -> Any:
    if value == "":
        return "text"
    return ["text"] if value == [] else value


def _wrong(what: str) -> BadRequest:
    return BadRequest(ErrorCode.INVALID_REQUEST, what)

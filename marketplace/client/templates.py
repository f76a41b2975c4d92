"""Texts with `{names}` in them, filled from rows of data and from earlier answers. No expressions."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from typing import Any, Final

from marketplace.protocol.errors import BadRequest, ErrorCode

_FORMATTER: Final = string.Formatter()


class Missing(BadRequest):
    """A name that stands for nothing; `name` is the one."""

    def __init__(self, name: str) -> None:
        super().__init__(ErrorCode.INVALID_REQUEST, f"there is no {{{name}}}", name=name)
        self.name = name


def names(template: Any) -> Iterator[str]:
    """Every name a template refers to, dots and all; lists and tables are looked through.

    Raises:
        BadRequest: a brace without its other half, or more in a brace than a name.
    """
    if isinstance(template, str):
        yield from (name for _, name in _parts(template) if name is not None)
    elif isinstance(template, Mapping):
        for value in template.values():
            yield from names(value)
    elif isinstance(template, list | tuple):
        for value in template:
            yield from names(value)


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """The template with what its names stand for.

    A text that is one name and nothing else becomes the value itself, of whatever kind. Inside other text a
    list of texts stands a line an item, and any other value as its JSON.

    Raises:
        Missing: a name stands for nothing.
        BadRequest: no template.
    """
    if isinstance(template, str):
        return _filled(template, values)
    if isinstance(template, Mapping):
        return {key: fill(value, values) for key, value in template.items()}
    if isinstance(template, list | tuple):
        return [fill(value, values) for value in template]
    return template


def lone_name(template: Any) -> str | None:
    """The name that a template is and nothing else; None for any other."""
    if not isinstance(template, str):
        return None
    parts = list(_parts(template))
    return parts[0][1] if len(parts) == 1 and not parts[0][0] else None


def _filled(template: str, values: Mapping[str, Any]) -> Any:
    alone = lone_name(template)
    if alone is not None:
        return _value(alone, values)
    pieces = []
    for text, name in _parts(template):
        pieces.append(text)
        if name is not None:
            pieces.append(_text(_value(name, values)))
    return "".join(pieces)


def _parts(template: str) -> Iterator[tuple[str, str | None]]:
    try:
        for text, name, spec, conversion in _FORMATTER.parse(template):
            if name is not None and (spec or conversion or not _is_name(name)):
                raise _unreadable(template, f"{{{name}}} is no name")
            yield text, name
    except ValueError as error:
        raise _unreadable(template, str(error)) from error


def _is_name(name: str) -> bool:
    return bool(name) and all(part and not set(part) & set("[]{}!:") for part in name.split("."))


def _value(name: str, values: Mapping[str, Any]) -> Any:
    # A column may have a dot in its name; only then is there no need to look inside anything.
    if name in values:
        return values[name]
    found: Any = values
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise Missing(name)
        found = found[part]
    return found


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return json.dumps(value, ensure_ascii=False)


def _unreadable(template: str, why: str) -> BadRequest:
    return BadRequest(
        ErrorCode.INVALID_REQUEST,
        f"{template[:60]!r} cannot be filled in: {why}",
        hint="Write {name}, and {{ or }} for a brace of its own.",
    )

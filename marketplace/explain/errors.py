"""The page of each error code: facts from the code, prose from `errors.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

from marketplace.protocol.errors import SPECS, Broken, ErrorCode

_SOURCE: Final = "errors.toml"
_NOT_CHARGED: Final = "No. The body says `charged: false`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Prose:
    """What a person wrote about a code; `run` is a command or request that helps."""

    means: str
    why: str
    remedy: str
    run: str
    charged: str = _NOT_CHARGED


@cache
def prose() -> dict[str, Prose]:
    """What is written, by code; also of codes that there are no longer.

    Raises:
        TypeError: a table with a field too many or too few.
    """
    text = resources.files(__package__).joinpath(_SOURCE).read_text(encoding="utf-8")
    return {code: Prose(**fields) for code, fields in tomllib.loads(text).items()}


def path(code: ErrorCode) -> str:
    """Where every gateway serves the page of a code."""
    return f"/docs/errors/{code.value}"


def facts(code: ErrorCode) -> dict[str, str]:
    """The page as plain values. Raises `Broken` when nobody has written about the code."""
    spec, written = SPECS[code], prose().get(code.value)
    if written is None:
        raise Broken(ErrorCode.INTERNAL, f"{_SOURCE} says nothing about {code}")
    return {
        "code": code.value,
        "title": spec.title,
        "status": str(spec.status),
        "hint": spec.hint,
        "retry": "yes" if spec.retryable else "no",
        "charged": written.charged,
        "means": written.means,
        "why": written.why,
        "remedy": written.remedy,
        "run": written.run,
    }


def page(code: ErrorCode) -> str:
    """A code's page in Markdown."""
    found = facts(code)
    retry = "Yes, the same call may work a moment later." if found["retry"] == "yes" else "No, not unchanged."
    return (
        f"# {found['code']}\n\n{found['title']}. HTTP {found['status']}.\n\n"
        f"{found['means']}\n\n"
        f"## Why\n\n{found['why']}\n\n"
        f"## What to do\n\n{found['remedy']}\n\n```sh\n{found['run']}\n```\n\n"
        f"In short: {found['hint']}\n\n"
        f"## Was it charged?\n\n{found['charged']}\n\n"
        f"## Does a retry help?\n\n{retry}\n"
    )

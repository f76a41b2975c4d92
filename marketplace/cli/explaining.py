"""`watt explain`: what an error code means and what to do, from the pages that are installed."""

from __future__ import annotations

from typing import Annotated

import typer

from marketplace.cli import screen
from marketplace.cli.options import Json, doc
from marketplace.protocol.errors import SPECS, BadRequest, ErrorCode


def register(app: typer.Typer) -> None:
    """Adds the command of this page."""
    app.command("explain", help=_EXPLAIN)(explain)


_EXPLAIN = doc(
    "Explain an error code: what it means, why it happens, what to do.",
    "watt explain no_session",
    "watt explain no_session --json",
    "watt explain",
    more=["Without a code: all of them, with what each means in a few words. Needs no network."],
)


def explain(
    code: Annotated[str | None, typer.Argument(metavar="CODE", help="As an error names it.")] = None,
    json: Json = False,
) -> None:
    """Explains an error code."""
    from marketplace.explain import errors

    if code is None:
        _list(as_json=json)
        return
    known = _named(code)
    if json:
        screen.emit({**errors.facts(known), "doc_url": errors.path(known)})
        return
    screen.out(errors.page(known), end="")


def _list(*, as_json: bool) -> None:
    if as_json:
        rows = [{"code": code.value, "status": s.status, "title": s.title} for code, s in SPECS.items()]
        screen.emit({"errors": rows})
        return
    rows_shown = [[code.value, str(spec.status), spec.title] for code, spec in SPECS.items()]
    screen.table(("CODE", "HTTP", "MEANS"), rows_shown)


def _named(text: str) -> ErrorCode:
    from difflib import get_close_matches

    name = text.strip().lower().replace("-", "_").removeprefix("urn:wattline:error:")
    if name in ErrorCode.__members__.values():
        return ErrorCode(name)
    near = get_close_matches(name, list(SPECS), n=1)
    hint = f"Did you mean {near[0]}?" if near else "watt explain lists them."
    raise BadRequest(ErrorCode.NOT_FOUND, f"{text[:60]!r} is no error code.", hint=hint)

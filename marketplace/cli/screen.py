"""Results on stdout, progress and errors on stderr; colour on terminals only, and never with NO_COLOR."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from marketplace.protocol.errors import ErrorCode, WattError

if TYPE_CHECKING:
    from rich.console import Console

_CALENDAR_ENDS: Final = 253_402_300_800


@dataclass(frozen=True, slots=True, kw_only=True)
class Currency:
    """The token amounts are shown in."""

    symbol: str = "TUSD"
    decimals: int = 6

    def bare(self, atoms: int | str) -> str:
        """Decimal amount, as in `0.000131`."""
        from marketplace.protocol.money import format_atoms

        return format_atoms(int(atoms), self.decimals)

    def show(self, atoms: int | str) -> str:
        """Amount with its symbol, as in `0.000131 TUSD`."""
        return f"{self.bare(atoms)} {self.symbol}"


def emit(data: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    out(json.dumps(data, ensure_ascii=False, default=str))


def out(text: str = "", end: str = "\n") -> None:
    """Part of the result, as it comes."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def note(text: str) -> None:
    """Progress, for people."""
    console(stderr=True).print(text, style="dim", markup=False, highlight=False, soft_wrap=True)


def done(text: str) -> None:
    """Something finished well, for people."""
    console(stderr=True).print(f"[green]✓[/] {_plain(text)}", highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under headings; numbers to the right. Tab-separated and whole when stdout is no terminal."""
    if not sys.stdout.isatty():
        for row in [columns, *rows]:
            out("\t".join(row))
        return
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="dim")
    listed = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numeric = all(_numeric(row[index]) for row in listed)
        shown.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        shown.add_row(*map(_plain, row))
    console().print(shown)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        out(f"{name.ljust(width)}  {value}")


def complain(error: WattError, currency: Currency, *, as_json: bool) -> None:
    """An error as a sentence, its code and its remedy; or as one JSON object on stdout."""
    from marketplace.client.problems import hint_of

    sentence, hint = worded(error, currency, hint_of(error))
    if as_json:
        known = {k: v for k, v in error.values.items() if isinstance(v, str | int) and k != "hint"}
        body = {
            "code": error.code.value,
            "message": sentence,
            "hint": hint,
            "retryable": error.spec.retryable,
            "charged": getattr(error, "charged", False),
            "request_id": getattr(error, "request_id", ""),
        }
        emit({"error": known | body})
        return
    failed(sentence, error.code.value, hint)


def worded(error: WattError, currency: Currency, hint: str) -> tuple[str, str]:
    """Sentence and remedy with amounts as people write them."""
    values = error.values
    if error.code is ErrorCode.PRICE_ABOVE_MAX and "ceiling_atoms" in values:
        ceiling, most = int(str(values["ceiling_atoms"])), int(str(values["max_atoms"]))
        asks = currency.bare(ceiling)
        sentence = f"No node will do this for {currency.show(most)}; the cheapest asks up to {asks}."
        return sentence, f"--max-cost {asks}, or shorten it: --max-tokens"
    if error.code is ErrorCode.SESSION_UNDERFUNDED and "need_atoms" in values:
        need = int(str(values["need_atoms"]))
        if "cap" in values:
            left = currency.bare(str(values["left_atoms"]))
            return f"This needs {currency.show(need)}; the key's {values['cap']} cap leaves {left}.", hint
        have = int(str(values["have_atoms"]))
        if "buyer" in values:
            account = f"the account of {values['buyer']} has {currency.bare(have)}"
            return f"This needs {currency.show(need)}; {account}.", hint
        sentence = f"This needs {currency.show(need)}; the account has {currency.bare(have)}."
        return sentence, f"watt wallet deposit {currency.bare(max(need - have, 1))}"
    return error.detail, hint


def failed(sentence: str, code: str, hint: str) -> None:
    """A failure, for people: what, its name, what to do."""
    screen = console(stderr=True)
    screen.print(f"[red]✗[/] {_plain(sentence)}  [dim]{code}[/]", highlight=False, soft_wrap=True)
    screen.print(f"  → {_plain(hint)}", highlight=False, soft_wrap=True)


def when(unix_seconds: int) -> str:
    """A moment, as in `2026-11-24 01:08 UTC`."""
    from datetime import UTC, datetime

    # The contracts count seconds in 48 bits, which goes beyond the calendar.
    if unix_seconds >= _CALENDAR_ENDS:
        return "never"
    return f"{datetime.fromtimestamp(unix_seconds, UTC):%Y-%m-%d %H:%M} UTC"


def console(*, stderr: bool = False) -> Console:
    """A console of this moment's stdout or stderr."""
    from rich.console import Console

    return Console(stderr=stderr)


def _numeric(text: str) -> bool:
    return text.replace(".", "", 1).replace("-", "", 1).isdigit()


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)

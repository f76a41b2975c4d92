"""What a person, a log or a program sees of a run."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from marketplace.local.options import Style

_NAME_WIDTH: Final = 11
_DETAIL_WIDTH: Final = 62


class Screen(Protocol):
    """Where progress goes; one step is open at a time."""

    def begin(self, name: str, detail: str = "") -> None:
        """A step starts."""

    def update(self, detail: str) -> None:
        """The open step has news."""

    def done(self, detail: str) -> None:
        """The open step succeeded."""

    def failed(self, detail: str) -> None:
        """The open step failed."""

    def note(self, text: str, **values: Any) -> None:
        """Something worth a line; values are for programs."""

    def problem(self, text: str, lines: Sequence[str] = (), hint: str = "") -> None:
        """Something broke: what, the last lines of a log, and what to do."""

    def close(self) -> None:
        """Nothing moves on the screen after this."""


def open_screen(style: Style, stream: TextIO | None = None) -> Screen:
    """Live on a terminal, lines elsewhere, or one JSON object a line."""
    target: Any = _Lasting(stream or sys.stdout)
    if style is Style.JSON:
        return JsonScreen(target)
    if style is Style.AUTO and target.isatty():
        return LiveScreen(Console(file=target, highlight=False))
    return PlainScreen(Console(file=target, highlight=False, soft_wrap=True))


class PlainScreen:
    """One line a finished step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._name = ""
        self._began = 0.0

    def begin(self, name: str, detail: str = "") -> None:  # noqa: ARG002 - lines show what is done, not what runs
        """A step starts."""
        self._name, self._began = name, time.monotonic()

    def update(self, detail: str) -> None:
        """The open step has news; lines do not show it."""

    def done(self, detail: str) -> None:
        """The open step succeeded."""
        self._line("✓", "green", detail)

    def failed(self, detail: str) -> None:
        """The open step failed."""
        self._line("✗", "red", detail)

    def note(self, text: str, **values: Any) -> None:  # noqa: ARG002 - values are for programs
        """Something worth a line."""
        self._console.print(f"  {text}", markup=False)

    def problem(self, text: str, lines: Sequence[str] = (), hint: str = "") -> None:
        """Something broke."""
        self._console.print(Text(f"✗ {text}", "red"))
        for line in lines:
            self._console.print(Text(f"    {line}", "dim"))
        if hint:
            self._console.print(f"  → {hint}", markup=False)

    def close(self) -> None:
        """Nothing to do."""

    def _line(self, mark: str, colour: str, detail: str) -> None:
        seconds = f"{time.monotonic() - self._began:5.1f} s"
        self._console.print(_row(mark, colour, self._name, detail, seconds))


class LiveScreen(PlainScreen):
    """Lines, with the open step turning below them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live: Live | None = None

    def begin(self, name: str, detail: str = "") -> None:
        """A step starts."""
        super().begin(name)
        self._live = Live(
            _Turning(name, detail, self._began), console=self._console, transient=True, refresh_per_second=10
        )
        self._live.start()

    def update(self, detail: str) -> None:
        """The open step has news."""
        if self._live:
            self._live.update(_Turning(self._name, detail, self._began))

    def done(self, detail: str) -> None:
        """The open step succeeded."""
        self.close()
        super().done(detail)

    def failed(self, detail: str) -> None:
        """The open step failed."""
        self.close()
        super().failed(detail)

    def close(self) -> None:
        """Stops what turns."""
        if self._live:
            self._live.stop()
            self._live = None


class JsonScreen:
    """One JSON object a line, for programs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._name = ""
        self._began = 0.0

    def begin(self, name: str, detail: str = "") -> None:
        """A step starts."""
        self._name, self._began = name, time.monotonic()
        self._write("step", name=name, state="started", detail=detail)

    def update(self, detail: str) -> None:
        """The open step has news."""
        self._write("step", name=self._name, state="running", detail=detail)

    def done(self, detail: str) -> None:
        """The open step succeeded."""
        self._end("ready", detail)

    def failed(self, detail: str) -> None:
        """The open step failed."""
        self._end("failed", detail)

    def note(self, text: str, **values: Any) -> None:
        """Something worth a line."""
        self._write("note", text=text, **values)

    def problem(self, text: str, lines: Sequence[str] = (), hint: str = "") -> None:
        """Something broke."""
        self._write("problem", text=text, log=list(lines), hint=hint)

    def close(self) -> None:
        """Nothing to do."""

    def _end(self, state: str, detail: str) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        self._write("step", name=self._name, state=state, detail=detail, seconds=seconds)

    def _write(self, event: str, **values: Any) -> None:
        self._stream.write(json.dumps({"event": event, **values}) + "\n")
        self._stream.flush()


class _Lasting:
    """A stream that is silent once its reader is gone: nobody listening is no reason to stop halfway."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes, or lets it be."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes, or lets it be."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Turning:
    """A spinner line that knows its age."""

    def __init__(self, name: str, detail: str, began: float) -> None:
        self._name, self._detail, self._began = name, detail, began
        self._spinner = Spinner("dots")

    def __rich__(self) -> Table:
        seconds = f"{time.monotonic() - self._began:5.1f} s"
        table = Table.grid(padding=(0, 1))
        table.add_row(" ", self._spinner, _row("", "", self._name, self._detail, seconds))
        return table


def _row(mark: str, colour: str, name: str, detail: str, seconds: str) -> Text:
    start = f"  {mark} " if mark else ""
    named = (name.ljust(_NAME_WIDTH), "bold")
    return Text.assemble((start, colour), named, detail.ljust(_DETAIL_WIDTH), (f" {seconds}", "dim"))

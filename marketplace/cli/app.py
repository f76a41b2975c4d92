"""The `watt` command: which commands there are, and how a run of one ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from marketplace.cli import (
    config,
    deletions,
    deploying,
    disputes,
    explaining,
    exporting,
    flows,
    hooks,
    jurors,
    keys,
    listening,
    maps,
    market,
    mcp,
    models,
    proxying,
    records,
    screen,
    sessions,
    tasks,
    wallets,
    work,
)
from marketplace.cli.exits import Exit, exit_of
from marketplace.protocol.errors import BadRequest, ErrorCode, WattError

PLUGINS: Final = "wattline.commands"
# What a command needs beside the buyer's packages.
_EXTRAS: Final = {"node": "node", "models": "node", "audit": "node", "proxy": "proxy"}
_HELP: Final = (
    "Buy and sell inference: escrowed, signed, verified.\n\n\b\nExamples:\n"
    "  watt up                     a whole market on this machine\n"
    '  watt run "Say hello"        ask it something\n'
    "  watt receipt verify FILE    check what you paid for, offline\n\n"
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 money, 5 network or chain, 130 interrupted."
)


class Plugin(TyperGroup):
    """Commands of another package, under one name; loaded when one of them is wanted."""

    def __init__(self, name: str, short_help: str) -> None:
        self._loaded: Any = None
        super().__init__(name=name, short_help=short_help, no_args_is_help=True)

    @property
    def commands(self) -> Any:
        """Name to command.

        Raises:
            BadRequest: the package is not installed.
        """
        if self._loaded is None:
            self._loaded = typer.main.get_command(_load(str(self.name)))
            self.help = self._loaded.help
        return self._loaded.commands

    @commands.setter
    def commands(self, _: Any) -> None:
        """The base class has none to give."""


class ModelCommands(TyperGroup):
    """`watt models`: a command of its own, and below it those of another package, loaded when wanted."""

    def __init__(self, **options: Any) -> None:
        self._loaded: Any = None
        super().__init__(**options)

    @property
    def commands(self) -> Any:
        """Name to command; none where no package adds any."""
        if self._loaded is None:
            point = _entry_points().get("models")
            group: Any = typer.main.get_command(point.load()) if point else None
            self._loaded = group.commands if group else {}
        return self._loaded

    @commands.setter
    def commands(self, _: Any) -> None:
        """The base class has none to give."""


class Commands(TyperGroup):
    """Our commands, then those that other packages add."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands["node"] = Plugin("node", "Sell inference: run and watch a node.")
        self.commands["audit"] = Plugin("audit", "Check that a node did the work it signed for.")

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command by name; names we do not know are looked up among installed packages."""
        own = super().get_command(ctx, cmd_name)
        return own if own or cmd_name not in _entry_points() else Plugin(cmd_name, "")


def build() -> typer.Typer:
    """The command with all its subcommands."""
    made = typer.Typer(
        cls=Commands,
        name="watt",
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    @made.callback()
    def keep_subcommands() -> None:
        """Without a callback a single command would swallow its own name."""

    market.register(made)
    work.register(made)
    tasks.register(made)
    proxying.register(made)
    maps.register(made)
    flows.register(made)
    made.add_typer(models.app(ModelCommands), name="models")
    records.register(made)
    mcp.register(made)
    wallets.register(made)
    sessions.register(made)
    keys.register(made)
    disputes.register(made)
    jurors.register(made)
    deploying.register(made)
    deletions.register(made)
    exporting.register(made)
    hooks.register(made)
    listening.register(made)
    explaining.register(made)
    return made


app: Final = build()


def invoke(arguments: Sequence[str]) -> int:
    """Runs one command line; returns its exit code and shows its error."""
    as_json = "--json" in arguments
    try:
        app(args=list(arguments), prog_name="watt")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except KeyboardInterrupt:
        screen.note("interrupted")
        return Exit.INTERRUPTED
    except WattError as error:
        screen.complain(error, _currency(), as_json=as_json)
        return exit_of(error)
    except ModuleNotFoundError as missing:
        extra = _EXTRAS.get(arguments[0] if arguments else "", "all")
        screen.complain(_not_installed(missing, extra), screen.Currency(), as_json=as_json)
        return Exit.FAILED
    return Exit.OK


def main() -> None:
    """Entry point of `watt`."""
    sys.exit(invoke(sys.argv[1:]))


def _currency() -> screen.Currency:
    try:
        return config.load().currency
    except WattError:
        return screen.Currency()


def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=PLUGINS)}


def _load(name: str) -> Any:
    point = _entry_points().get(name)
    try:
        return point.load() if point else _absent(name)
    except ModuleNotFoundError as missing:
        raise _not_installed(missing, "node" if name == "audit" else name) from missing


def _absent(name: str) -> Any:
    raise ModuleNotFoundError(f"no package adds `watt {name}`")


def _not_installed(missing: ModuleNotFoundError, extra: str) -> BadRequest:
    detail = f"This needs a package that is not installed: {missing}."
    return BadRequest(ErrorCode.UNSUPPORTED, detail, hint=f"pip install 'wattline[{extra}]'")

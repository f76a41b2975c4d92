"""Behind `watt up`: the supervisor in this process, and one question asked of it where that was wished."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from marketplace.cli import work
from marketplace.cli.exits import Exit
from marketplace.local.market import Market
from marketplace.local.options import Style, UpOptions
from marketplace.local.screen import Screen
from marketplace.local.up import run_up
from marketplace.protocol.errors import WattError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """Options of one `watt up`."""

    data_dir: Path
    models_dir: Path | None
    port: int | None
    root: Path | None
    style: str
    start_seconds: int
    database_url: str | None
    broker_url: str | None
    ephemeral: bool
    once: str | None


def run(wishes: Wishes) -> int:
    """Runs the market; returns the exit code."""
    with ExitStack() as stack:
        folder = wishes.data_dir
        if wishes.ephemeral:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="watt-")))
        options = _options(wishes, folder)
        return run_up(options) if wishes.once is None else _once(options, wishes.once)


def models_dir() -> Path:
    """Where weights are kept between runs: WATT_MODELS_DIR, else the user's cache."""
    from platformdirs import user_cache_path

    named = os.environ.get("WATT_MODELS_DIR")
    return Path(named) if named else user_cache_path("wattline") / "models"


def _options(wishes: Wishes, folder: Path) -> UpOptions:
    return UpOptions(
        data_dir=folder,
        models_dir=wishes.models_dir or models_dir(),
        port=wishes.port,
        root=wishes.root,
        style=Style(wishes.style),
        start_seconds=wishes.start_seconds,
        database_url=wishes.database_url,
        broker_url=wishes.broker_url,
    )


def _once(options: UpOptions, prompt: str) -> int:
    """Starts the market, asks, stops it. An error of the question is raised once it has stopped."""
    problems: list[WattError] = []

    def ask(_market: Market, _screen: Screen) -> int:
        try:
            work.run(prompt, data_dir=options.data_dir)
        except WattError as problem:
            problems.append(problem)
            return Exit.FAILED
        return Exit.OK

    code = run_up(options, then=ask)
    if problems:
        raise problems[0]
    return code

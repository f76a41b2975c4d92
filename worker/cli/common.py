"""What the node's commands share: options, settings, errors in words, waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer

if TYPE_CHECKING:
    from worker.settings import NodeSettings

_POLL_SECONDS: Final = 0.25

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The node's folder. [WATT_NODE_DATA_DIR]", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Timeout = Annotated[int, typer.Option("--timeout", min=1, help="Seconds to wait.")]


def read_settings(**overrides: Any) -> NodeSettings:
    """Settings of the environment, and what the command line says otherwise."""
    from worker.settings import NodeSettings

    return NodeSettings.read(**overrides)


def wait(done: Callable[[], bool], timeout_seconds: int) -> bool:
    """Waits for something another process does; False when it takes too long."""
    deadline = time.monotonic() + timeout_seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


@contextmanager
def explained() -> Iterator[None]:
    """Turns errors into one sentence and a remedy."""
    from pydantic import ValidationError

    from marketplace.protocol.errors import WattError
    from worker.models.errors import ModelError

    try:
        yield
    except WattError as error:
        fail(error.detail, str(error.values.get("hint") or error.spec.hint))
    except ModelError as error:
        fail(error.detail, error.hint)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"][:1])
        fail(f"setting {name}: {first['msg']}", f"Correct WATT_NODE_{name.upper()}.")


def fail(detail: str, hint: str) -> NoReturn:
    """Ends the command with a sentence and what helps."""
    typer.secho(f"error: {detail}", fg=typer.colors.RED, err=True)
    typer.echo(f"hint: {hint}", err=True)
    raise typer.Exit(1)

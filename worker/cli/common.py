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
# What buyers see of the same kind, by the model's own code; neither is imported before a command needs it.
_CODES: Final = {
    "model_missing": "not_found",
    "model_unsafe_file": "invalid_file",
    "model_incomplete": "invalid_file",
    "model_mismatch": "invalid_file",
    "model_unknown_name": "unknown_model",
    "model_fetch_failed": "not_ready",
    "model_unsupported": "unsupported",
}

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
    """Turns what is wrong with models and settings into errors as the rest of `watt` shows them."""
    from pydantic import ValidationError

    from marketplace.protocol.errors import BadRequest, ErrorCode
    from worker.models.errors import ModelError

    try:
        yield
    except ModelError as error:
        raise BadRequest(ErrorCode(_CODES[error.code]), error.detail, hint=error.hint) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"][:1])
        fail(f"setting {name}: {first['msg']}", f"Correct WATT_NODE_{name.upper()}.")


def fail(detail: str, hint: str, code: str = "invalid_request") -> NoReturn:
    """Ends the command with a sentence and what helps."""
    from marketplace.protocol.errors import BadRequest, ErrorCode

    raise BadRequest(ErrorCode(code), detail, hint=hint)

"""Log lines: one event name and values by key, readable on a terminal, JSON elsewhere.

Ids are bound once (`bound(trace_id=…)`) and appear in every line below, those of other libraries too.
Never log keys, prompts or outputs.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any, Final, Protocol, TextIO

import structlog
import structlog.tracebacks
from structlog.contextvars import bound_contextvars, merge_contextvars

_QUIET: Final = (
    *("httpx", "httpcore", "urllib3", "web3", "asyncio", "mcp", "websockets", "uvicorn.access"),
    # A line when a task comes and one when it is done: of a job they say less than its own lines.
    *("celery.worker.strategy", "celery.app.trace"),
)
_SECRET: Final = ("secret", "private_key", "password", "authorization", "api_key", "mnemonic", "prompt")
_HIDDEN: Final = "(hidden)"


class Logger(Protocol):
    """What our code uses of a logger: an event name, then values by key."""

    def debug(self, event: str, **values: object) -> None:
        """For somebody who looks for a defect."""

    def info(self, event: str, **values: object) -> None:
        """Something happened as it should."""

    def warning(self, event: str, **values: object) -> None:
        """Something failed and will be tried again."""

    def error(self, event: str, **values: object) -> None:
        """Somebody has to look."""

    def exception(self, event: str, **values: object) -> None:
        """An error with the traceback of the exception at hand."""

    def bind(self, **values: object) -> Logger:
        """A logger that adds these to each line."""


def get_logger(name: str) -> Logger:
    """Logger of a module; name it `__name__`.

    It writes through the standard library, so before `set_up` a program that merely uses our packages sees
    warnings on standard error and nothing else. A record's `msg` is the line as a dict.
    """
    logger: Logger = structlog.wrap_logger(
        logging.getLogger(name), processors=_processors(), wrapper_class=structlog.stdlib.BoundLogger
    )
    return logger


def bound(**ids: str) -> contextlib.AbstractContextManager[None]:
    """Adds ids such as `trace_id` and `job_id` to every line of this task or thread."""
    return _bound(ids)


def set_up(level: str = "INFO", *, stream: TextIO | None = None, pretty: bool | None = None) -> None:
    """Routes all logging of the process, the standard library's too, to one stream.

    Args:
        level: least level that is written.
        stream: standard error when None.
        pretty: lines for people instead of JSON; when None, whether the stream is a terminal.
    """
    out = stream or sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(pretty=out.isatty() if pretty is None else pretty))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "hardhat"):
        # Libraries that bring handlers of their own would write each line twice.
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=_processors(),
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


@contextlib.contextmanager
def _bound(ids: dict[str, str]) -> Iterator[None]:
    with bound_contextvars(**ids):
        yield


def _processors() -> list[Any]:
    return [
        structlog.stdlib.filter_by_level,
        *_shared(),
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ]


def _shared() -> list[Any]:
    return [
        merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _hide_secrets,
    ]


def _formatter(*, pretty: bool) -> logging.Formatter:
    # Tracebacks without local variables: those hold prompts and keys.
    last: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [_json_tracebacks(), structlog.processors.JSONRenderer(default=str)]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_shared(),
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _json_tracebacks() -> structlog.processors.ExceptionRenderer:
    return structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )


def _hide_secrets(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in line:
        if any(mark in name.lower() for mark in _SECRET):
            line[name] = _HIDDEN
    return line

"""Writes docs/reference/*.md and docs/openapi.json from the code: `python -m tests.house.reference`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import typer
import typer.main
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from marketplace.explain import errors as error_pages
from marketplace.protocol.errors import SPECS, ErrorCode, WattError
from marketplace.protocol.phases import ENDINGS
from marketplace.protocol.webhooks import EVENT_DOCS
from marketplace.telemetry.names import LOG_DOCS, METRICS, SPAN_DOCS

ROOT = Path(__file__).resolve().parents[2]
ERROR_PAGES: Final = "reference/errors"
HEAD: Final = "<!-- Written by `python -m tests.house.reference`; edit the code instead. -->\n"


def main() -> None:
    """Writes every page anew, and removes those of error codes that are gone."""
    for path in left_over():
        path.unlink()
    for name, page in PAGES.items():
        path = ROOT / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page())


def left_over() -> list[Path]:
    """Pages of error codes that there are no longer."""
    return [p for p in (ROOT / "docs" / ERROR_PAGES).glob("*.md") if f"{ERROR_PAGES}/{p.name}" not in PAGES]


def settings_page() -> str:
    """Every setting of both processes."""
    from marketplace.settings import Settings as Gateway
    from worker.settings import NodeSettings as Node

    text = "Every setting is an environment variable; a frozen class reads them once at start.\n"
    parts = [HEAD, "# Settings\n", text, "## Gateway\n", _settings(Gateway), "\n## Node\n", _settings(Node)]
    return "\n".join(parts) + "\n"


def errors_page() -> str:
    """Every error code and every end of a job."""
    codes = [
        (
            f"[`{code}`](errors/{code}.md)",
            spec.status,
            spec.title,
            spec.hint,
            "yes" if spec.retryable else "no",
        )
        for code, spec in SPECS.items()
    ]
    ends = [
        (
            f"`{reason}`",
            f"`{end.problem}`" if end.problem else "",
            "yes" if end.charged else "no",
            end.sentence,
        )
        for reason, end in ENDINGS.items()
    ]
    text = (
        "Each answer that is not 2xx carries one of these as `code`, with `charged`, `hint`, and `doc_url`,\n"
        "where the gateway serves the code's page. `watt explain CODE` prints it.\n"
    )
    parts = [HEAD, "# Errors\n", text, _table(("code", "HTTP", "what", "what helps", "retry helps"), codes)]
    parts += ["\n## How a job can end\n", _table(("reason", "code", "charged", "in words"), ends)]
    return "\n".join(parts) + "\n"


def error_page(code: ErrorCode) -> str:
    """What one error code means, and what to do."""
    return HEAD + error_pages.page(code)


def webhooks_page() -> str:
    """Every event a webhook can be told of."""
    rows = [(f"`{event}`", doc) for event, doc in EVENT_DOCS.items()]
    text = (
        "A message is `{type, timestamp, data}`, signed as Standard Webhooks describe. It never holds what\n"
        "was asked or answered. `data` names the job (or session) and says `charged`.\n"
    )
    return "\n".join([HEAD, "# Webhook events\n", text, _table(("event", "when"), rows)]) + "\n"


def metrics_page() -> str:
    """Every metric, log event and span."""
    metrics = [(f"`{m.name}`", m.kind, ", ".join(m.labels), m.doc) for m in METRICS]
    logs = [(f"`{name}`", doc) for name, doc in LOG_DOCS.items()]
    spans = [(f"`{name}`", doc) for name, doc in SPAN_DOCS.items()]
    parts = [HEAD, "# What is measured and logged\n", _table(("metric", "kind", "labels", "what"), metrics)]
    parts += ["\n## Log events\n", _table(("event", "when"), logs)]
    parts += ["\n## Spans\n", _table(("span", "what"), spans)]
    return "\n".join(parts) + "\n"


def commands_page() -> str:
    """Every command with its options."""
    parts = [HEAD, "# Commands\n", _exit_codes()]
    for path, command in commands():
        parts.append(f"## `{path}`\n\n{(command.help or command.short_help or '').strip().splitlines()[0]}\n")
        rows = [
            (f"`{' '.join(p.opts)}`", (getattr(p, "help", "") or "").replace("\n", " "))
            for p in command.params
            if p.name not in ("help", "install_completion", "show_completion")
        ]
        if rows:
            parts.append(_table(("option or argument", "what"), rows) + "\n")
    return "\n".join(parts)


def _exit_codes() -> str:
    """How a command ends, and the error codes behind each end."""
    from marketplace.cli.exits import Exit, exit_of

    behind = {code: [error for error in ErrorCode if exit_of(WattError(error)) is code] for code in Exit}
    rows = [
        (int(code), code.name.lower(), ", ".join(f"`{error}`" for error in behind[code])) for code in Exit
    ]
    text = "With `--json` a command prints one JSON object; `json/` beside this page has its schema.\n"
    return f"{text}\n{_table(('exit code', 'what', 'error codes'), rows)}\n"


def commands() -> list[tuple[str, Any]]:
    """Every command of `watt`, the node's among them, as (path, click command)."""
    from marketplace.cli.app import build

    return list(_walk("watt", typer.main.get_command(build())))


def openapi_page() -> str:
    """What the gateway's HTTP API says of itself."""
    from marketplace.api.app import create_app
    from marketplace.api.routes.system import Health

    # Routes are described without being called, so no market is needed behind them.
    market: Any = SimpleNamespace(metrics=None)
    app = create_app(market, Health(checks=list, lag_blocks=lambda: None), max_body_bytes=1)
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


PAGES: Final[dict[str, Callable[[], str]]] = {
    "reference/settings.md": settings_page,
    "reference/errors.md": errors_page,
    "reference/metrics.md": metrics_page,
    "reference/webhooks.md": webhooks_page,
    "reference/commands.md": commands_page,
    "openapi.json": openapi_page,
    **{f"{ERROR_PAGES}/{code}.md": partial(error_page, code) for code in ErrorCode},
}


def _walk(path: str, command: Any) -> Iterable[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if not children or command.invoke_without_command:
        yield path, command
    if not children:
        return
    for name, child in children.items():
        if not child.hidden:
            yield from _walk(f"{path} {name}", child)


def _settings(settings: type[BaseSettings]) -> str:
    prefix = str(settings.model_config.get("env_prefix", "")).upper()
    rows = [
        (f"`{prefix}{name.upper()}`", _default(field), field.description or "")
        for name, field in settings.model_fields.items()
    ]
    return _table(("variable", "default", "what"), rows)


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default_factory else field.default
    return "" if value is None or isinstance(value, SecretStr) or value == "" else f"`{value}`"


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


if __name__ == "__main__":
    main()

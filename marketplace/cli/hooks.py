"""`watt webhooks`: where a key is told what happens to its jobs, and what it was told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from marketplace.cli import config as configs
from marketplace.cli import screen
from marketplace.cli.inputs import segment
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, WalletFile, doc

Hook = Annotated[str, typer.Argument(metavar="ID", help="As `watt webhooks list` shows it.")]
_PATH: Final = "/v1/webhooks"


def register(app: typer.Typer) -> None:
    """Adds the commands of this page."""
    hooks = typer.Typer(no_args_is_help=True, help="Be told by HTTP what happens to your jobs.")
    hooks.command("add", help=_ADD)(add)
    hooks.command("list", help=_LIST)(listed)
    hooks.command("remove", help=_REMOVE)(remove)
    hooks.command("enable", help=_ENABLE)(enable)
    hooks.command("deliveries", help=_DELIVERIES)(deliveries)
    hooks.command("redeliver", help=_REDELIVER)(redeliver)
    app.add_typer(hooks, name="webhooks")


_ADD = doc(
    "Have a key's events sent to an address, signed.",
    "watt webhooks add https://example.com/hooks",
    "watt webhooks add https://example.com/hooks --event job.settled",
    more=[
        "The secret is shown once. Check signatures with any Standard Webhooks library.",
        "Whose events: WATT_API_KEY's if it is set, else those of the key `watt run` uses.",
    ],
)


def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Public http or https address.")],
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="NAME", help="Only this; may be repeated.")
    ] = None,
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Adds a webhook."""
    body = {"url": url} | ({"events": event} if event else {})
    made = _ask("POST", _PATH, gateway, data_dir, wallet, passphrase_file, body)
    if json:
        screen.emit(made)
        return
    screen.facts([("id", made["id"]), ("secret", made["secret"]), ("events", ", ".join(made["events"]))])
    screen.note("Keep the secret now: it is not shown again.")


_LIST = doc("List a key's webhooks.", "watt webhooks list", "watt webhooks list --json")


def listed(
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Lists webhooks."""
    rows = _ask("GET", _PATH, gateway, data_dir, wallet, passphrase_file)["data"]
    if json:
        screen.emit({"webhooks": rows})
        return
    columns = ("WEBHOOK", "STATUS", "URL", "EVENTS", "WHY")
    names = ("id", "status", "url")
    screen.table(
        columns,
        [
            [*(str(row[name] or "") for name in names), ",".join(row["events"]), row["disabled_reason"] or ""]
            for row in rows
        ],
    )


_REMOVE = doc("Send nothing more to a webhook, and forget it.", "watt webhooks remove wh_q3x…")


def remove(
    webhook_id: Hook,
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Removes a webhook."""
    gone = _ask("DELETE", f"{_PATH}/{segment(webhook_id)}", gateway, data_dir, wallet, passphrase_file)
    _end(gone, f"{webhook_id}: removed", as_json=json)


_ENABLE = doc(
    "Send to a webhook again that was disabled; what waited goes out.", "watt webhooks enable wh_q3x…"
)


def enable(
    webhook_id: Hook,
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Enables a webhook."""
    path = f"{_PATH}/{segment(webhook_id)}/enable"
    found = _ask("POST", path, gateway, data_dir, wallet, passphrase_file)
    _end(found, f"{webhook_id}: {found['status']}", as_json=json)


_DELIVERIES = doc(
    "Show what a webhook was sent, newest first, and what came of it.",
    "watt webhooks deliveries wh_q3x…",
    "watt webhooks deliveries wh_q3x… --limit 100 --json",
)


def deliveries(
    webhook_id: Hook,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most this many.")] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="MSG", help="Older than this one.")] = None,
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Shows deliveries."""
    path = f"{_PATH}/{segment(webhook_id)}/deliveries?limit={limit}"
    path += f"&after={segment(after)}" if after else ""
    found = _ask("GET", path, gateway, data_dir, wallet, passphrase_file)
    if json:
        screen.emit({"deliveries": found["data"], "has_more": found["has_more"]})
        return
    columns = ("MESSAGE", "EVENT", "SUBJECT", "STATE", "TRIES", "ANSWER")
    names = ("id", "event", "subject", "state", "attempts")
    rows = [
        [*(str(row[name]) for name in names), str(row["answered"] or row["problem"] or "")]
        for row in found["data"]
    ]
    screen.table(columns, rows)


_REDELIVER = doc(
    "Send a message once more, with the same id and body.", "watt webhooks redeliver wh_q3x… msg_q3x…_17"
)


def redeliver(
    webhook_id: Hook,
    message: Annotated[str, typer.Argument(metavar="MSG", help="As `watt webhooks deliveries` shows it.")],
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Sends a message again."""
    path = f"{_PATH}/{segment(webhook_id)}/deliveries/{segment(message)}/redeliver"
    found = _ask("POST", path, gateway, data_dir, wallet, passphrase_file)
    _end(found, f"{message}: goes out again", as_json=json)


def _ask(
    method: str,
    path: str,
    gateway: str | None,
    data_dir: Path | None,
    wallet: Path | None,
    passphrase_file: Path | None,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    from marketplace.cli.asking import Caller

    config = configs.load(data_dir, gateway_url=gateway, wallet=wallet)
    return Caller(config=config, passphrase_file=passphrase_file).ask(method, path, body)


def _end(found: dict[str, Any], said: str, *, as_json: bool) -> None:
    if as_json:
        screen.emit(found)
    else:
        screen.done(said)

"""`watt listen`: a key's events as they come, for whoever builds a receiver on this machine."""

from __future__ import annotations

import json as jsons
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marketplace.cli import config as configs
from marketplace.cli import screen
from marketplace.cli.options import DataDir, Gateway, Json, PassphraseFile, WalletFile, doc

if TYPE_CHECKING:
    from marketplace.cli.asking import Caller

_PATH: Final = "/v1/webhooks"
_EVERY_SECONDS: Final = 1.0
_LOCAL_SECONDS: Final = 10.0


def register(app: typer.Typer) -> None:
    """Adds the command of this page."""
    app.command("listen", help=_LISTEN)(listen)


_LISTEN = doc(
    "Show a key's events as they come, and post them to a receiver on this machine.",
    "watt listen",
    "watt listen --forward http://127.0.0.1:3000/hooks",
    "watt listen --event job.settled --count 1 --json",
    more=[
        "Messages are signed as those of a webhook, with the secret that is shown first.",
        "What the receiver does not take comes again a minute later. Ctrl-C ends it.",
    ],
)


def listen(
    *,
    forward: Annotated[
        str | None, typer.Option("--forward", metavar="URL", help="Post each message here.")
    ] = None,
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="NAME", help="Only this; may be repeated.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=0, metavar="N", help="End after N; 0: never.")] = 0,
    gateway: Gateway = None,
    data_dir: DataDir = None,
    wallet: WalletFile = None,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Listens until it is stopped; the webhook it makes goes with it."""
    from marketplace.cli.asking import Caller

    caller = Caller(
        config=configs.load(data_dir, gateway_url=gateway, wallet=wallet), passphrase_file=passphrase_file
    )
    body: dict[str, Any] = {"url": None} | ({"events": event} if event else {})
    made = caller.ask("POST", _PATH, body)
    screen.note(f"listening; secret {made['secret']}")
    taken: list[dict[str, Any]] = []
    try:
        _rounds(caller, made, forward, taken, count=count, quiet=json)
    finally:
        caller.ask("DELETE", f"{_PATH}/{made['id']}")
    if json:
        screen.emit({"messages": taken})


def _rounds(
    caller: Caller,
    made: dict[str, Any],
    forward: str | None,
    taken: list[dict[str, Any]],
    *,
    count: int,
    quiet: bool,
) -> None:
    arrived: list[str] = []
    while not count or len(taken) < count:
        found = caller.ask("POST", f"{_PATH}/{made['id']}/fetch", {"taken": arrived})
        arrived = []
        for message in found["data"]:
            said = _posted(forward, made["secret"], message) if forward else "shown"
            shown = jsons.loads(message["body"])
            if not quiet:
                subject = shown["data"].get("job_id") or shown["data"].get("session_id") or ""
                screen.out(f"{shown['timestamp']}  {shown['type'].ljust(14)}  {subject}  {said}")
            if said == "shown" or said.startswith("2"):
                arrived.append(message["id"])
                taken.append({"id": message["id"], "answer": said} | shown)
        if not found["data"]:
            _pause(_EVERY_SECONDS)
    caller.ask("POST", f"{_PATH}/{made['id']}/fetch", {"taken": arrived})


def _pause(seconds: float) -> None:
    time.sleep(seconds)


def _posted(url: str, secret: str, message: dict[str, Any]) -> str:
    """What the receiver answered: its status, or why there is none."""
    import httpx2

    from marketplace.protocol import webhooks

    body = str(message["body"]).encode()
    headers = webhooks.headers(webhooks.secret_bytes(secret), message["id"], int(time.time()), body)
    try:
        return str(httpx2.post(url, content=body, headers=headers, timeout=_LOCAL_SECONDS).status_code)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return f"not taken: {error or type(error).__name__}"

"""One question to the gateway, for commands that need no key and no chain."""

from __future__ import annotations

import time
from typing import Any, Final

from marketplace.cli import wiring
from marketplace.cli.config import Config

_LOOKS: Final = 20
_PAUSE_SECONDS: Final = 0.25


def ask(
    config: Config,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """JSON answer of one call. Raises `GatewayProblem` or `GatewayTrouble`."""
    import anyio

    async def call() -> dict[str, Any]:
        gateway = wiring.open_gateway(config)
        try:
            return await gateway.call(method, path, body, headers=headers)
        finally:
            await gateway.aclose()

    return anyio.run(call)


def names_gateway(config: Config) -> bool:
    """Whether somebody named a gateway, or one runs from here."""
    return config.settings["gateway_url"].origin != "default"


def has_read(config: Config, block_number: int) -> bool | None:
    """Whether the gateway has read the chain up to a block, after some seconds of patience at most.

    None where nobody named a gateway.
    """
    from marketplace.client.problems import GatewayProblem, GatewayTrouble

    if not names_gateway(config):
        return None
    try:
        for _ in range(_LOOKS):
            head = ask(config, "GET", "/v1/chain").get("head") or {}
            if int(head.get("number", 0)) >= block_number:
                return True
            time.sleep(_PAUSE_SECONDS)
    except (GatewayProblem, GatewayTrouble):
        return False
    return False

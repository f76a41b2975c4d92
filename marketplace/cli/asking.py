"""One question to the gateway, for commands that need no key and no chain."""

from __future__ import annotations

from typing import Any

import anyio

from marketplace.cli import wiring
from marketplace.cli.config import Config


def ask(config: Config, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """JSON answer of one call. Raises `GatewayProblem` or `GatewayTrouble`."""

    async def call() -> dict[str, Any]:
        gateway = wiring.open_gateway(config)
        try:
            return await gateway.call(method, path, body)
        finally:
            await gateway.aclose()

    return anyio.run(call)

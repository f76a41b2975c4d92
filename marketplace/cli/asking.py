"""Questions to the gateway, for commands that need no chain; in the name of a key where one is wanted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from marketplace.cli import wiring
from marketplace.cli.config import Config
from marketplace.protocol.errors import BadRequest, ErrorCode

if TYPE_CHECKING:
    from marketplace.client.gateway import Gateway

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks: by a bearer secret, else by visits that a key signs."""

    config: Config
    passphrase_file: Path | None = None

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """JSON answer of one call. Raises `GatewayProblem` or `GatewayTrouble`."""
        import anyio

        headers = self._headers()

        async def call() -> dict[str, Any]:
            gateway = self._gateway()
            try:
                if method == "GET":
                    return await gateway.get(path, params=params, headers=headers)
                if method == "DELETE":
                    return await gateway.delete(path, headers=headers)
                return await gateway.post(path, body or {}, headers=headers)
            finally:
                await gateway.aclose()

        return anyio.run(call)

    def download(self, path: str, params: Mapping[str, str], into: IO[bytes]) -> int:
        """Writes a call's answer as it comes; gives how many bytes. Raises as `ask`."""
        import anyio

        headers = self._headers()

        async def call() -> int:
            gateway, written = self._gateway(), 0
            try:
                async for piece in gateway.download(path, params=params, headers=headers):
                    written += into.write(piece)
            finally:
                await gateway.aclose()
            return written

        return anyio.run(call)

    def _gateway(self) -> Gateway:
        return wiring.open_gateway(self.config)

    def _headers(self) -> dict[str, str]:
        """Empty where the gateway sends a bearer secret itself.

        A secret that the caller gave counts first; the local market's own is for OpenAI clients, and what
        `watt run` does is done by the key.
        """
        if self.config.settings["api_key"].origin == "WATT_API_KEY":
            return {}
        if self.config.get("wallet") is None and self.config.get("private_key") is None:
            if self.config.get("api_key") is not None:
                return {}
            hint = "Set WATT_API_KEY to a gateway's key, or WATT_WALLET to a key file."
            raise BadRequest(ErrorCode.MISSING_KEY, "Nobody is known to ask in whose name.", hint=hint)
        from marketplace.chain.deployment import Deployment
        from marketplace.client.views import Surroundings
        from marketplace.client.visits import visit_header

        domain = Deployment.load(Path(self.config.need("deployment"))).domain
        return visit_header(wiring.signer(self.config, self.passphrase_file), domain, Surroundings().now_ms())

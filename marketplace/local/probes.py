"""Whether something answers; each call asks once, and apart from `ask` none raises for a no."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

import httpx2

from marketplace.local.ports import HOST

_TIMEOUT_SECONDS: Final = 10.0
# Nothing here speaks TLS, and to read the certificates that the system trusts takes longer than most answers.
_TRUST_NOBODY: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def ask(method: str, url: str, **more: Any) -> httpx2.Response:
    """One HTTP request on this machine; no proxy of the environment stands in between.

    Raises:
        httpx2.HTTPError: nobody answers.
    """
    with httpx2.Client(trust_env=False, timeout=_TIMEOUT_SECONDS, verify=_TRUST_NOBODY) as client:
        return client.request(method, url, **more)


def rpc(url: str, method: str, *params: Any) -> Any:
    """Result of one JSON-RPC call; None when nobody answers."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
    answer = _asked("POST", url, json=body)
    return answer.get("result") if isinstance(answer, dict) else None


def http_json(url: str) -> Any:
    """JSON of a page that answers 2xx; None otherwise."""
    return _asked("GET", url)


def not_ready(gateway_url: str) -> list[str] | None:
    """Names of the gateway's checks that fail; None when it does not answer at all."""
    try:
        answer = ask("GET", f"{gateway_url}/readyz")
        checks = answer.json().get("checks", {})
    except (httpx2.HTTPError, ValueError, AttributeError):
        return None
    if answer.is_success:
        return []
    items = checks.items() if isinstance(checks, dict) else ()
    return [name for name, check in items if not _is_good(check)] or ["starting"]


def offered(gateway_url: str) -> int:
    """Offers of connected nodes that the gateway can quote now."""
    models = http_json(f"{gateway_url}/v1/models")
    rows = models.get("data", []) if isinstance(models, dict) else []
    return sum(int(row.get("offers", 0)) for row in rows)


def pong(port: int) -> bool:
    """Whether a Valkey answers on a loopback port."""
    try:
        with socket.create_connection((HOST, port), timeout=_TIMEOUT_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False


def _is_good(check: Any) -> bool:
    return bool(check.get("ok", False)) if isinstance(check, dict) else check in (True, "ok")


def _asked(method: str, url: str, **more: Any) -> Any:
    try:
        answer = ask(method, url, **more)
        return answer.json() if answer.is_success else None
    except (httpx2.HTTPError, ValueError):
        return None

"""JSON-RPC with a time limit, bounded retries of reads, and errors by blame."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from web3 import HTTPProvider
from web3.types import RPCEndpoint

from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode

_PAUSES_SECONDS: Final = (0.1, 0.4)
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_TOO_MANY: Final = 429
_LIMIT_EXCEEDED: Final = -32_005


class RpcRefused(Exception):
    """The node answered with an error; it is reachable, the request is what it refuses."""

    def __init__(self, method: str, code: int, message: str, data: bytes) -> None:
        self.method = method
        self.code = code
        self.message = message
        self.data = data
        super().__init__(f"{method}: {message}")


class Rpc:
    """One endpoint. Safe to use from several threads.

    web3's own retries are off: they would repeat `eth_sendRawTransaction` and turn a success into an error.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float = 10, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.url = url
        self._sleep = sleep
        options: dict[str, Any] = {"timeout": timeout_seconds}
        if _host(url) in _LOOPBACK:
            # A proxy named in the environment must not stand between us and a chain on this machine.
            options["proxies"] = {"http": "", "https": ""}
        self._provider = HTTPProvider(url, request_kwargs=options, exception_retry_configuration=None)

    def read(self, method: str, *params: Any) -> Any:
        """Result of a call without effects; tried three times within a second of pauses.

        Raises:
            ChainTrouble: no usable answer.
            RpcRefused: the node answered with an error.
        """
        for pause in _PAUSES_SECONDS:
            try:
                return self.once(method, *params)
            except ChainTrouble as trouble:
                if not trouble.values.get("again"):
                    raise
                self._sleep(pause)
        return self.once(method, *params)

    def once(self, method: str, *params: Any) -> Any:
        """Result of one try. Raises as `read` does."""
        try:
            answer: Any = self._provider.make_request(RPCEndpoint(method), list(params))
        except (OSError, ValueError) as error:
            # Everything `requests` raises is an OSError; an answer that is no JSON is a ValueError.
            raise self._unreachable(method, error) from error
        if isinstance(answer, dict) and "result" in answer:
            return answer["result"]
        if not isinstance(answer, dict) or not isinstance(answer.get("error"), dict):
            raise ChainTrouble(
                ErrorCode.CHAIN_UNAVAILABLE, f"{method}: no JSON-RPC answer from {self._name()}", again=True
            )
        raise self._refused(method, answer["error"])

    def _unreachable(self, method: str, error: Exception) -> ChainTrouble:
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = f"HTTP {status}" if status else type(error).__name__
        again = status is None or status == _TOO_MANY or status >= 500
        return ChainTrouble(
            ErrorCode.CHAIN_UNAVAILABLE, f"{method}: {why} from {self._name()}", again=again, status=status
        )

    def _refused(self, method: str, error: dict[str, Any]) -> ChainTrouble | RpcRefused:
        code, message = int(error.get("code", 0)), str(error.get("message", "refused"))
        if code == _LIMIT_EXCEEDED:
            detail = f"{method}: {message}"
            return ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, detail, again=True, rpc_code=code)
        return RpcRefused(method, code, message, _revert_data(error.get("data")))

    def _name(self) -> str:
        # Path and query of an RPC address often hold the operator's API key.
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        # Reading the port refuses one that is no number.
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.hostname
    except ValueError as error:
        raise _no_address() from error
    raise _no_address()


def _no_address() -> BadRequest:
    # Not shown: an RPC address often holds its operator's API key.
    return BadRequest(
        ErrorCode.INVALID_REQUEST,
        "the RPC's address is none",
        hint="Write it as in http://127.0.0.1:8545: --rpc URL or WATT_RPC_URL.",
    )


def _revert_data(data: Any) -> bytes:
    # Some nodes wrap the bytes: {"data": "0x…"}.
    text = data.get("data") if isinstance(data, dict) else data
    if not isinstance(text, str) or not text.startswith("0x"):
        return b""
    try:
        return bytes.fromhex(text[2:])
    except ValueError:
        return b""

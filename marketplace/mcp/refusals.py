"""Errors as a model reads them: what happened, its code, what helps, and whether money moved."""

from __future__ import annotations

import json
from typing import Any

from mcp_types import CallToolResult, TextContent
from pydantic import ValidationError

from marketplace.client.problems import GatewayTrouble, hint_of
from marketplace.protocol.errors import ErrorCode, WattError


def refusal(error: WattError) -> CallToolResult:
    """The answer to a call that failed."""
    return _told(
        {
            "code": error.code.value,
            "message": error.detail,
            "hint": hint_of(error),
            "charged": charged(error),
            "retryable": error.spec.retryable,
            **{name: value for name, value in error.values.items() if _plain(name, value)},
        }
    )


def misworded(error: ValidationError) -> CallToolResult:
    """The answer to arguments that do not fit a tool's schema; their values are not repeated."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return _told(
        {
            "code": ErrorCode.INVALID_REQUEST.value,
            "message": f"{where}: {first['msg']}",
            "hint": "Correct the named argument; see the tool's input schema.",
            "charged": False,
            "retryable": False,
        }
    )


def charged(error: WattError) -> bool | None:
    """Whether money moved; None while nobody knows, as when the gateway fell silent after an order."""
    if isinstance(error, GatewayTrouble) and error.values.get("ordered"):
        return None
    return bool(getattr(error, "charged", False))


def _plain(name: str, value: object) -> bool:
    return name not in ("hint", "faults", "bundle", "ordered") and isinstance(value, str | int)


def _told(body: dict[str, Any]) -> CallToolResult:
    text = TextContent(type="text", text=json.dumps(body, ensure_ascii=False))
    return CallToolResult(content=[text], structured_content=body, is_error=True)

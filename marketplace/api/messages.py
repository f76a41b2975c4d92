"""Signed messages and bytes as callers send them in JSON."""

from __future__ import annotations

from typing import Any, TypeVar

from marketplace.protocol.eip712 import Message
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, typed_address

M = TypeVar("M", bound=Message)


def read(kind: type[M], data: dict[str, Any], param: str) -> M:
    """A message of its `to_json`. Raises `BadRequest`."""
    try:
        return kind.from_json(data)
    except (ValueError, TypeError, KeyError) as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{param}: {error}", param=param) from error


def blob(text: str, param: str, length: int | None = None) -> bytes:
    """Bytes of 0x-hex. Raises `BadRequest`."""
    try:
        return from_hex(text, length)
    except ValueError as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{param}: {error}", param=param) from error


def address(text: str, param: str) -> str:
    """Checksummed form of an address; mistyped ones are refused. Raises `BadRequest`."""
    try:
        return typed_address(text)
    except ValueError as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, f"{param}: {error}", param=param) from error

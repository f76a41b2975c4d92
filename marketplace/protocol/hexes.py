"""Bytes at the edges: hex, addresses and keccak in one place."""

from __future__ import annotations

from typing import Final

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak as _keccak

ZERO32: Final = bytes(32)
ZERO_ADDRESS: Final = "0x" + "00" * 20


def keccak(data: bytes) -> bytes:
    """Keccak-256 digest, 32 bytes."""
    return bytes(_keccak(primitive=data))


def to_hex(data: bytes) -> str:
    """Lower-case hex with `0x`."""
    return "0x" + data.hex()


def from_hex(text: str, length: int | None = None) -> bytes:
    """Bytes of `0x…` text.

    Raises:
        ValueError: no `0x`, odd or foreign digits, or not `length` bytes.
    """
    if not text.startswith("0x"):
        raise ValueError(f"hex must start with 0x, got {text[:12]!r}")
    data = bytes.fromhex(text[2:])
    if length is not None and len(data) != length:
        raise ValueError(f"expected {length} bytes of hex, got {len(data)}")
    return data


def checksum(address: str | bytes) -> str:
    """EIP-55 form of an address given as hex text or 20 bytes."""
    return str(to_checksum_address(address))

"""Bytes at the edges: hex, addresses and keccak in one place."""

from __future__ import annotations

import functools
from typing import Final

from sha3 import keccak_256

ZERO32: Final = bytes(32)
ZERO_ADDRESS: Final = "0x" + "00" * 20


def keccak(data: bytes) -> bytes:
    """Keccak-256 digest, 32 bytes. In C: a receipt takes one for each chunk of its answer."""
    return bytes(keccak_256(data).digest())


def to_hex(data: bytes) -> str:
    """Lower-case hex with `0x`."""
    return "0x" + data.hex()


def from_hex(text: str, length: int | None = None) -> bytes:
    """Bytes of `0x…` text.

    Raises:
        ValueError: no text, no `0x`, odd or foreign digits, or not `length` bytes.
    """
    # Callers hand over what they found in JSON: null and numbers are as wrong as foreign digits.
    if not (isinstance(text, str) and text.startswith("0x")):
        raise ValueError(f"hex must be text that starts with 0x, got {str(text)[:12]!r}")
    data = bytes.fromhex(text[2:])
    if length is not None and len(data) != length:
        raise ValueError(f"expected {length} bytes of hex, got {len(data)}")
    return data


def checksum(address: str | bytes) -> str:
    """EIP-55 form of an address given as hex text or 20 bytes.

    Raises:
        ValueError: anything else.
    """
    digits = bytes.hex(address) if isinstance(address, bytes) else _digits(address)
    if len(digits) != 40:
        raise ValueError(f"an address is 20 bytes of hex, got {str(address)[:48]!r}")
    return _marked(digits)


@functools.lru_cache(maxsize=4096)
def _marked(digits: str) -> str:
    """The same few addresses sign thousands of messages."""
    marks = keccak(digits.encode()).hex()
    return "0x" + "".join([d.upper() if m > "7" else d for d, m in zip(digits, marks, strict=False)])


def _digits(address: str) -> str:
    """Lower-case digits of an address in hex, with or without `0x`. Raises `ValueError`."""
    digits = address[2:] if address[:2] in ("0x", "0X") else address
    # Python's reader passes over blanks.
    return bytes.fromhex(digits).hex() if len(digits) == 40 else ""


def typed_address(text: str) -> str:
    """EIP-55 form of an address that a person may have typed; mixed case must be its checksum.

    Raises:
        ValueError: no 20 bytes of hex, or a digit is mistyped.
    """
    from_hex(text, 20)
    known, digits = checksum(text), text[2:]
    if text != known and digits not in (digits.lower(), digits.upper()):
        raise ValueError(f"{text} does not fit its checksum: a digit is mistyped")
    return known

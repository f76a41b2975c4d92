"""Names of things outside the chain. Randomness arrives as an argument."""

from __future__ import annotations

import base64
from typing import Final

from marketplace.protocol.hexes import from_hex, keccak

API_KEY_PREFIX: Final = "sk-watt-"


def job_id(random: bytes) -> str:
    """`job_…` of 15 random bytes."""
    return "job_" + _base32(random[:15])


def file_id(random: bytes) -> str:
    """`file-…` of 15 random bytes."""
    return "file-" + _base32(random[:15])


def batch_id(random: bytes) -> str:
    """`batch_…` of 15 random bytes."""
    return "batch_" + _base32(random[:15])


def webhook_id(random: bytes) -> str:
    """`wh_…` of 15 random bytes."""
    return "wh_" + _base32(random[:15])


def trace_id(random: bytes) -> str:
    """W3C trace id: 32 hex digits of 16 random bytes."""
    return random[:16].hex()


def receipt_id(receipt_digest: bytes) -> str:
    """`rcpt_…`, the first 16 bytes of the receipt's digest."""
    return "rcpt_" + receipt_digest[:16].hex()


def api_key(random: bytes) -> str:
    """Bearer secret of 24 random bytes."""
    return API_KEY_PREFIX + base64.urlsafe_b64encode(random[:24]).decode()


def api_key_hash(secret: str) -> bytes:
    """What a gateway keeps of a bearer secret."""
    return keccak(b"wattline api key\0" + secret.encode())


def session_id(text: str) -> bytes:
    """32 bytes of a session id. Raises `ValueError`."""
    return from_hex(text, 32)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()

"""HPKE (RFC 9180): X25519, HKDF-SHA256, AES-256-GCM, base mode. Browsers can open it too."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from marketplace.protocol.errors import BadRequest, ErrorCode

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def public_key(secret: bytes) -> bytes:
    """32-byte X25519 public key of a 32-byte secret."""
    key = X25519PrivateKey.from_private_bytes(secret).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def seal(to: bytes, info: bytes, plaintext: bytes) -> bytes:
    """Ciphertext only the holder of `to`'s secret opens, and only under the same `info`."""
    return bytes(_SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(to), info))


def unseal(secret: bytes, info: bytes, ciphertext: bytes) -> bytes:
    """Plaintext of `seal`.

    Raises:
        BadRequest: other key, other `info`, or altered bytes.
    """
    try:
        return bytes(_SUITE.decrypt(ciphertext, X25519PrivateKey.from_private_bytes(secret), info))
    except (InvalidTag, ValueError) as error:
        raise BadRequest(ErrorCode.INVALID_REQUEST, "sealed bytes do not open with this key") from error

"""HPKE (RFC 9180): X25519, HKDF-SHA256, AES-256-GCM, base mode. Browsers can open it too.

`seal` and `unseal` are one message of a fresh key. A `Context` is for an exchange: its encapsulated key is
one the sender holds, so that both ends export the same secrets, and the sender can make it again.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from marketplace.protocol.errors import BadRequest, ErrorCode

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_KEM_ID: Final = b"KEM\x00\x20"
_SUITE_ID: Final = b"HPKE\x00\x20\x00\x01\x00\x02"
_BASE_MODE: Final = b"\x00"
_KEY_BYTES, _NONCE_BYTES = 32, 12


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


@dataclass(frozen=True, slots=True)
class Context:
    """One HPKE context; both ends hold the same. Only its first message is ever used."""

    _key: bytes = field(repr=False)
    _nonce: bytes = field(repr=False)
    _exporter: bytes = field(repr=False)

    def seal(self, plaintext: bytes) -> bytes:
        """The sender's message. For one plaintext only: the nonce never changes."""
        return AESGCM(self._key).encrypt(self._nonce, plaintext, b"")

    def open(self, ciphertext: bytes) -> bytes:
        """Plaintext of `seal`.

        Raises:
            BadRequest: `seal_unusable`: other keys, other `info`, or altered bytes.
        """
        return open_aead(self._key, self._nonce, ciphertext)

    def export(self, label: bytes) -> bytes:
        """32 secret bytes for one use."""
        return _expand(_SUITE_ID, self._exporter, b"sec", label, _KEY_BYTES)


def sending(secret: bytes, to: bytes, info: bytes) -> Context:
    """The context whose encapsulated key is `secret`'s public key. The same arguments, the same context.

    Raises:
        BadRequest: `seal_unusable`: `to` is no key that anything can be sealed to.
    """
    return _context(_shared(secret, to), public_key(secret) + to, info)


def receiving(secret: bytes, encapsulated: bytes, info: bytes) -> Context:
    """The same context from the recipient's secret. Raises as `sending`."""
    return _context(_shared(secret, encapsulated), encapsulated + public_key(secret), info)


def open_aead(key: bytes, nonce: bytes, ciphertext: bytes) -> bytes:
    """Plaintext under AES-256-GCM. Raises `BadRequest` (`seal_unusable`) for other bytes than were sealed."""
    try:
        return AESGCM(key).decrypt(nonce, ciphertext, b"")
    except (InvalidTag, ValueError) as error:
        raise BadRequest(ErrorCode.SEAL_UNUSABLE, "sealed bytes do not open with this key") from error


def _shared(secret: bytes, public: bytes) -> bytes:
    try:
        return X25519PrivateKey.from_private_bytes(secret).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        # Also a point of low order, whose shared secret everybody knows.
        raise BadRequest(ErrorCode.SEAL_UNUSABLE, "this is no key that can be sealed to") from error


def _context(shared: bytes, both: bytes, info: bytes) -> Context:
    """RFC 9180 §4.1 and, in base mode, §5.1; `both` are the encapsulated key and the recipient's."""
    secret = _expand(_KEM_ID, _extract(_KEM_ID, b"", b"eae_prk", shared), b"shared_secret", both, 32)
    hashes = _extract(_SUITE_ID, b"", b"psk_id_hash", b"") + _extract(_SUITE_ID, b"", b"info_hash", info)
    bound = _BASE_MODE + hashes
    root = _extract(_SUITE_ID, secret, b"secret", b"")
    return Context(
        _expand(_SUITE_ID, root, b"key", bound, _KEY_BYTES),
        _expand(_SUITE_ID, root, b"base_nonce", bound, _NONCE_BYTES),
        _expand(_SUITE_ID, root, b"exp", bound, _KEY_BYTES),
    )


def _extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    # HMAC pads its key with zeros, so that no salt is the salt of zeros HKDF means.
    return hmac.digest(salt, b"HPKE-v1" + suite + label + secret, "sha256")


def _expand(suite: bytes, root: bytes, label: bytes, bound: bytes, length: int) -> bytes:
    # Never more than one block of HKDF.
    text = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + bound
    return hmac.digest(root, text + b"\x01", "sha256")[:length]

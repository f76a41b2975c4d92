"""ECDSA over digests with coincurve; low s only, so that one message has one signature form."""

from __future__ import annotations

from typing import Final

from coincurve import PrivateKey, PublicKey

from marketplace.protocol.eip712 import AnyDomain, Message
from marketplace.protocol.hexes import checksum, from_hex, keccak

_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_HIGHEST_S: Final = (_ORDER // 2).to_bytes(32, "big")


class BadSignature(ValueError):
    """Not a canonical 65-byte signature; sign with low s and v of 27 or 28."""


class Signer:
    """One secp256k1 key; keeps the secret out of `repr`."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes | str) -> None:
        raw = from_hex(secret, 32) if isinstance(secret, str) else secret
        self._key = PrivateKey(raw)
        self.address = _address(self._key.public_key)

    def __repr__(self) -> str:
        return f"Signer({self.address})"

    @property
    def secret(self) -> bytes:
        """The private key, 32 bytes."""
        return bytes(self._key.secret)

    def sign_digest(self, digest: bytes) -> bytes:
        """65 bytes r ‖ s ‖ v over a ready 32-byte digest, v in {27, 28}."""
        raw = self._key.sign_recoverable(digest, hasher=None)
        return bytes(raw[:64]) + bytes([raw[64] + 27])

    def sign(self, message: Message, domain: AnyDomain) -> bytes:
        """Signature of a typed message."""
        return self.sign_digest(message.digest(domain))


def recover(digest: bytes, signature: bytes) -> str:
    """Address that signed `digest`.

    Raises:
        BadSignature: wrong length, high s, foreign v, or no such point.
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        raise BadSignature("a signature is 65 bytes r‖s‖v with v of 27 or 28")
    if signature[32:64] > _HIGHEST_S:
        raise BadSignature("the signature has a high s; only the low form is accepted")
    try:
        key = PublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except (ValueError, Exception) as error:
        raise BadSignature("no public key fits this signature") from error
    return _address(key)


def signer_of(message: Message, domain: AnyDomain, signature: bytes) -> str:
    """Address that signed a typed message. Raises `BadSignature`."""
    return recover(message.digest(domain), signature)


def compact(signature: bytes) -> tuple[bytes, bytes]:
    """EIP-2098 pair (r, vs) of a 65-byte signature."""
    parity = signature[64] - 27
    vs = int.from_bytes(signature[32:64], "big") | parity << 255
    return signature[:32], vs.to_bytes(32, "big")


def expanded(signature: bytes) -> bytes:
    """65 bytes of a 64-byte signature, which is EIP-2098's r and vs; the reverse of `compact`."""
    vs = int.from_bytes(signature[32:], "big")
    s = vs & ((1 << 255) - 1)
    return signature[:32] + s.to_bytes(32, "big") + bytes([27 + (vs >> 255)])


def _address(key: PublicKey) -> str:
    return checksum(keccak(key.format(compressed=False)[1:])[-20:])

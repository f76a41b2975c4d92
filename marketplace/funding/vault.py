"""Delegate keys at rest: AES-256-GCM under the gateway's own secret, bound to the key's address."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.protocol.signing import Signer

SECRET_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Vault:
    """Seals private keys and opens them again.

    Args:
        secret: 32 bytes; whoever has them and the database has every held key.
        random: as `secrets.token_bytes`.
    """

    def __init__(self, secret: bytes, random: Callable[[int], bytes]) -> None:
        self._cipher = AESGCM(secret)
        self._secret = secret
        self._identity: Signer | None = None
        self._random = random
        self._opened: dict[str, Signer] = {}

    def create(self) -> tuple[Signer, bytes]:
        """A fresh key and its sealed form."""
        signer = Signer(self._random(32))
        return signer, self.seal(signer)

    def seal(self, signer: Signer) -> bytes:
        """The sealed form of a key."""
        nonce = self._random(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, signer.secret, signer.address.encode())

    def derive(self, purpose: str, salt: bytes = b"") -> bytes:
        """32 bytes that follow from the secret, a purpose and a salt, and tell nothing of the secret."""
        given = b"wattline derived\0" + purpose.encode() + b"\0" + salt
        return hmac.digest(self._secret, given, hashlib.sha256)

    def open(self, address: str, sealed: bytes) -> Signer:
        """The key that was sealed; opened once, then remembered.

        Raises:
            Broken: the secret is another, or the row was altered.
        """
        found = self._opened.get(address)
        if found is not None:
            return found
        nonce, box = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            signer = Signer(self._cipher.decrypt(nonce, box, address.encode()))
        except (InvalidTag, ValueError) as error:
            raise Broken(
                ErrorCode.INTERNAL, "a held key does not open: restore the gateway's secret file"
            ) from error
        self._opened[address] = signer
        return signer

    @property
    def identity(self) -> Signer:
        """The gateway's own key: it signs what the gateway says of itself, and holds no money."""
        if self._identity is None:
            self._identity = Signer(self.derive("identity"))
        return self._identity


def load_secret(path: Path, random: Callable[[int], bytes]) -> bytes:
    """The gateway's secret; made on first use, readable by its owner only.

    Raises:
        Broken: the file is not 32 bytes, or others may read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_secret(path)
    secret = random(SECRET_BYTES)
    with os.fdopen(handle, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return secret


def _read_secret(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise Broken(ErrorCode.INTERNAL, f"{path} is readable by others: chmod 600 it")
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise Broken(ErrorCode.INTERNAL, f"{path} must hold {SECRET_BYTES} bytes; restore it from a backup")
    return secret

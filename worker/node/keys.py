"""The node's own keys: made once, kept in files only their owner can read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.sealing import public_key
from marketplace.protocol.signing import Signer

SIGNING, SETTLER, ENCRYPTION = "signing", "settler", "encryption"
_OTHERS_MAY_READ = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKeys:
    """What others see of a node's keys."""

    signer: str
    settler: str
    encryption_key: bytes


class KeyRing:
    """Keys by name, from the settings or from `folder`."""

    def __init__(self, folder: Path, given: dict[str, str | None], random: Callable[[int], bytes]) -> None:
        """`given` are secrets as 0x-hex, by name; what is missing there is read, or made, in `folder`."""
        self._folder = folder
        self._given = given
        self._random = random

    def secret(self, name: str) -> bytes:
        """32 secret bytes; made the first time. Safe from several processes at once.

        Raises:
            BadRequest: not 32 bytes of hex, or a file others can read.
        """
        given = self._given.get(name)
        text = given if given is not None else self._stored(name)
        try:
            return from_hex(text.strip(), 32)
        except ValueError as error:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST, f"the {name} key must be 0x and 64 hex digits"
            ) from error

    def signer(self, name: str) -> Signer:
        """ECDSA key by name. Raises as `secret`."""
        return Signer(self.secret(name))

    def public(self) -> PublicKeys:
        """Addresses and encryption key of the node; makes missing keys."""
        return PublicKeys(
            signer=self.signer(SIGNING).address,
            settler=self.signer(SETTLER).address,
            encryption_key=public_key(self.secret(ENCRYPTION)),
        )

    def _stored(self, name: str) -> str:
        path = self._folder / f"{name}.key"
        if not path.exists():
            self._make(path)
        if path.stat().st_mode & _OTHERS_MAY_READ:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST,
                f"{path} can be read by others: chmod 600 it, or better, replace it",
            )
        return path.read_text()

    def _make(self, path: Path) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(to_hex(self._random(32)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link, unlike a rename, fails when another process was first: then its key is the key.
            path.hardlink_to(fresh)
        except FileExistsError:
            return
        finally:
            fresh.unlink()

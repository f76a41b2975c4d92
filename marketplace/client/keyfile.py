"""Private keys on disk: encrypted keystore v3, or bare hex for machines; for their owner only."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Final

from eth_account import Account

from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def save_keystore(signer: Signer, path: Path, passphrase: str) -> None:
    """Writes a keystore v3 file (scrypt, takes about a second).

    Raises:
        BadRequest: the file exists; a key is never overwritten.
    """
    document: dict[str, Any] = Account.encrypt(signer.secret, passphrase, kdf="scrypt")
    _write(path, json.dumps(document) + "\n")


def save_raw(signer: Signer, path: Path) -> None:
    """Writes the bare key; whoever reads the file has the money. Raises as `save_keystore`."""
    _write(path, to_hex(signer.secret) + "\n")


def load_key(path: Path, passphrase: str | None = None) -> Signer:
    """The key of a file of either kind.

    Raises:
        BadRequest: no such file, readable by others, wrong or missing passphrase, or no key in it.
    """
    try:
        if path.stat().st_mode & _OTHERS:
            raise _bad(f"{path} can be read by others", hint=f"chmod 600 {path}")
        text = path.read_text().strip()
    except OSError as error:
        raise BadRequest(
            ErrorCode.NOT_FOUND, f"No key at {path}.", path=str(path), hint="watt wallet new"
        ) from error
    except UnicodeDecodeError as error:
        raise _no_key(path) from error
    return _decrypt(text, path, passphrase) if text.startswith("{") else _raw(text, path)


def is_keystore(path: Path) -> bool:
    """Whether a file needs a passphrase."""
    try:
        return path.read_text().lstrip().startswith("{")
    except (OSError, UnicodeDecodeError):
        return False


def _decrypt(text: str, path: Path, passphrase: str | None) -> Signer:
    if passphrase is None:
        raise _bad(f"{path} needs its passphrase", hint="Set WATT_PASSPHRASE, or --passphrase-file FILE.")
    try:
        return Signer(bytes(Account.decrypt(text, passphrase)))
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise _bad(f"{path} does not open with this passphrase", hint="Check it and try again.") from error


def _raw(text: str, path: Path) -> Signer:
    try:
        return Signer(text if text.startswith("0x") else "0x" + text)
    except ValueError as error:
        raise _no_key(path) from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise _not_writable(path, error) from error
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise _bad(
            f"{path} exists; a key is never overwritten", hint="Name another file: --out FILE."
        ) from error
    except OSError as error:
        raise _not_writable(path, error) from error
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)


def _not_writable(path: Path, error: OSError) -> BadRequest:
    return _bad(f"{path} cannot be written ({error.strerror})", hint="Name another file: --out FILE.")


def _no_key(path: Path) -> BadRequest:
    return _bad(f"{path} holds no private key", hint="64 hex digits, or a keystore v3 file.")


def _bad(detail: str, *, hint: str) -> BadRequest:
    return BadRequest(ErrorCode.INVALID_REQUEST, detail, hint=hint)

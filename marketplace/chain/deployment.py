"""Where the contracts are, and on which chain; a file every process reads."""

from __future__ import annotations

import dataclasses
import errno
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, from_hex, to_hex, typed_address

_REMEDY = "run `watt up`, or deploy with `watt deploy` and point to its file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One set of contracts.

    Attributes:
        genesis_hash: of block 0; tells a restarted local chain from the one deployed to.
        deployed_block: first block with anything of ours in it.
        max_session_seconds: longest time from opening a session to its expiry.
        grace_seconds: time after expiry in which vouchers and claims still count.
        challenge_seconds: time in which a claim can be disputed.
        models: the register of models; the zero address where the contracts were deployed without one.
        till: where quotes are paid without an account; the zero address likewise.
        receiver: code of the till's receivers; with it an address to pay to is worked out offline.
    """

    chain_id: int
    genesis_hash: bytes
    deployed_block: int
    token: str
    registry: str
    escrow: str
    court: str
    treasury: str
    token_symbol: str
    token_decimals: int
    min_stake_atoms: int
    max_session_seconds: int
    grace_seconds: int
    challenge_seconds: int
    models: str = ZERO_ADDRESS
    till: str = ZERO_ADDRESS
    receiver: str = ZERO_ADDRESS

    @property
    def has_till(self) -> bool:
        """Whether somebody without an account can pay here."""
        return self.till != ZERO_ADDRESS

    @property
    def has_models(self) -> bool:
        """Whether models can be published and named here."""
        return self.models != ZERO_ADDRESS

    @property
    def domain(self) -> Domain:
        """Domain of every signature for this deployment."""
        return Domain(self.chain_id, self.escrow)

    def to_json(self) -> dict[str, Any]:
        """Field name to JSON value."""
        return dataclasses.asdict(self) | {"genesis_hash": to_hex(self.genesis_hash)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Deployment of `to_json`. Raises `ValueError` or `TypeError`."""
        names = {f.name for f in dataclasses.fields(cls)}
        if not names - _LATER <= set(data) <= names:
            raise ValueError(f"fields {sorted(names ^ set(data))} are missing or surplus")
        return cls(**{name: _read(name, value) for name, value in data.items()})

    def save(self, path: Path) -> None:
        """Writes the file in one step, so that nobody reads half of it."""
        save_json(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Deployment of a file, or of an address book.

        Raises:
            BadRequest: there is no such file.
            Broken: the file is not one of ours.
        """
        try:
            data = json.loads(path.read_text())
            return cls.from_json(data.get("deployment", data))
        except FileNotFoundError as error:
            raise BadRequest(
                ErrorCode.INVALID_REQUEST, f"no deployment file at {path}: {_REMEDY}", path=str(path)
            ) from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise Broken(
                ErrorCode.INTERNAL,
                f"deployment file {path} is not readable ({error}): remove it, then {_REMEDY}",
                path=str(path),
            ) from error


def check_writable(path: Path) -> None:
    """Passes where `save_json` can write; makes the folder.

    Raises:
        BadRequest: it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.touch()
        fresh.unlink()
    except OSError as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"{path} cannot be written ({error.strerror})",
            hint="Name another file: --out FILE; nothing was sent.",
        ) from error


def save_json(path: Path, data: dict[str, Any]) -> None:
    """Writes a JSON file in one step, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(data, indent=2) + "\n")
    fresh.replace(path)


_ADDRESSES = frozenset({"token", "registry", "escrow", "court", "treasury", "models", "till", "receiver"})
# Fields that files of earlier releases do not have.
_LATER = frozenset({"models", "till", "receiver"})
_UINT64 = (1 << 64) - 1
_MOST = {"token_decimals": 255}
_TEXTS = _ADDRESSES | {"token_symbol", "genesis_hash"}


def _read(name: str, value: Any) -> Any:
    kind = str if name in _TEXTS else int
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} must be {kind.__name__}")
    if isinstance(value, int) and not 0 <= value <= _MOST.get(name, _UINT64):
        raise ValueError(f"{name} is {value}")
    if name == "genesis_hash":
        return from_hex(str(value), 32)
    return typed_address(str(value)) if name in _ADDRESSES else value

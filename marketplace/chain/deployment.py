"""Where the contracts are, and on which chain; a file every process reads."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from marketplace.protocol.eip712 import Domain
from marketplace.protocol.errors import BadRequest, Broken, ErrorCode
from marketplace.protocol.hexes import checksum, from_hex, to_hex

_REMEDY = "run `watt up`, or deploy with `watt deploy` and point to its file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One set of contracts.

    Attributes:
        genesis_hash: of block 0; tells a restarted local chain from the one deployed to.
        deployed_block: first block with anything of ours in it.
        max_session_seconds: longest time from opening a session to its expiry.
        grace_seconds: time after expiry in which vouchers still settle.
    """

    chain_id: int
    genesis_hash: bytes
    deployed_block: int
    token: str
    registry: str
    escrow: str
    treasury: str
    token_symbol: str
    token_decimals: int
    min_stake_atoms: int
    max_session_seconds: int
    grace_seconds: int

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
        if set(data) != names:
            raise ValueError(f"fields {sorted(names ^ set(data))} are missing or surplus")
        return cls(**{name: _read(name, value) for name, value in data.items()})

    def save(self, path: Path) -> None:
        """Writes the file in one step, so that nobody reads half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(json.dumps(self.to_json(), indent=2) + "\n")
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Deployment of a file.

        Raises:
            BadRequest: there is no such file.
            Broken: the file is not one of ours.
        """
        try:
            return cls.from_json(json.loads(path.read_text()))
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


_ADDRESSES = frozenset({"token", "registry", "escrow", "treasury"})
_TEXTS = _ADDRESSES | {"token_symbol", "genesis_hash"}


def _read(name: str, value: Any) -> Any:
    kind = str if name in _TEXTS else int
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} must be {kind.__name__}")
    if name == "genesis_hash":
        return from_hex(str(value), 32)
    return checksum(str(value)) if name in _ADDRESSES else value

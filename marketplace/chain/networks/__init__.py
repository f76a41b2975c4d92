"""Chains the contracts are deployed to: one TOML file each, those here by name and others by path."""

from __future__ import annotations

import dataclasses
import importlib.resources
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from marketplace.chain.params import CourtParams, DeployParams
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import typed_address

_ENDING: Final = ".toml"
_TOP: Final[dict[str, type]] = {
    "chain_id": int,
    "confirmations": int,
    "token": str,
    "token_symbol": str,
    "token_decimals": int,
    "treasury": str,
}
_BOUNDS: Final = {"chain_id": (1, (1 << 63) - 1), "confirmations": (1, 10_000), "token_decimals": (0, 255)}
_COURT: Final = {field.name for field in dataclasses.fields(CourtParams)}
_MARKET: Final = {f.name for f in dataclasses.fields(DeployParams)} - {"treasury", "token", "court"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A chain and what the contracts are to be there.

    Attributes:
        token: None deploys a test dollar, on local chains only.
        token_symbol: what the token must call itself, as a guard against a wrong address; None: not checked.
        treasury: None: to be named when deploying.
    """

    name: str
    chain_id: int
    confirmations: int = 1
    token: str | None = None
    token_symbol: str | None = None
    token_decimals: int | None = None
    treasury: str | None = None
    market: Mapping[str, int] = dataclasses.field(default_factory=dict)
    court: CourtParams = dataclasses.field(default_factory=CourtParams)

    def params(self, treasury: str) -> DeployParams:
        """Constructor arguments with this treasury."""
        return DeployParams(treasury=treasury, token=self.token, court=self.court, **self.market)


def names() -> list[str]:
    """Networks the package knows."""
    found = importlib.resources.files(__name__).iterdir()
    return sorted(item.name.removesuffix(_ENDING) for item in found if item.name.endswith(_ENDING))


def load(name: str) -> Network:
    """A network by name, or of a file whose path ends in `.toml`.

    Raises:
        BadRequest: there is none, or its file does not say what such a file must.
    """
    if name.endswith(_ENDING):
        return _read(Path(name).stem, _text(Path(name)))
    if name not in names():
        raise BadRequest(
            ErrorCode.NOT_FOUND,
            f"no network is called {name!r}; there are {', '.join(names())}",
            hint="Name one of these, or a file of your own: --network my-chain.toml",
        )
    return _read(name, importlib.resources.files(__name__).joinpath(name + _ENDING).read_text())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        raise BadRequest(
            ErrorCode.NOT_FOUND, f"{path} cannot be read ({why}).", hint="Check the path."
        ) from error


def _read(name: str, text: str) -> Network:
    try:
        data = tomllib.loads(text)
        market, court = _numbers(data.pop("market", {}), _MARKET), _numbers(data.pop("court", {}), _COURT)
        known = {key: _value(key, value) for key, value in data.items()}
        return Network(name=name, **known, market=market, court=dataclasses.replace(CourtParams(), **court))
    except (ValueError, TypeError) as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"the file of network {name} is not right: {error}",
            hint="docs/operations.md lists what it holds.",
        ) from error


def _value(key: str, value: Any) -> Any:
    # A bool is an int to Python, and no number to people.
    if key not in _TOP or not isinstance(value, _TOP[key]) or isinstance(value, bool):
        raise ValueError(f"{key} is not known, or not of its kind")
    least, most = _BOUNDS.get(key, (0, 0))
    if isinstance(value, int) and not least <= value <= most:
        raise ValueError(f"{key} is {value}, it must be {least} to {most}")
    return typed_address(str(value)) if key in ("token", "treasury") else value


def _numbers(table: Any, known: set[str]) -> dict[str, int]:
    if not isinstance(table, dict):
        raise TypeError("market and court are tables")
    for key, value in table.items():
        if key not in known or not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{key} is not known, or no whole number")
    return table

"""Where the command finds its market: flags, WATT_* variables, the running local market, defaults."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from marketplace.cli.screen import Currency
from marketplace.protocol.errors import BadRequest, ErrorCode

DEFAULT_GATEWAY: Final = "http://127.0.0.1:8402"
_MOST_DECIMALS: Final = 255
PROFILE_NAME: Final = "market.json"
SECRET: Final = frozenset({"api_key", "private_key"})
_VARIABLES: Final = {
    "gateway_url": "WATT_GATEWAY_URL",
    "rpc_url": "WATT_RPC_URL",
    "deployment": "WATT_DEPLOYMENT_PATH",
    "wallet": "WATT_WALLET",
    "private_key": "WATT_PRIVATE_KEY",
    "api_key": "WATT_API_KEY",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from; None where nobody gave one."""

    value: str | None
    origin: str


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one run of the command."""

    data_dir: Path
    settings: dict[str, Setting]

    def get(self, name: str) -> str | None:
        """A setting, if there is one."""
        return self.settings[name].value

    def need(self, name: str) -> str:
        """A setting that the command cannot do without.

        Raises:
            BadRequest: nobody gave it.
        """
        value = self.get(name)
        if value is None:
            raise BadRequest(
                ErrorCode.NOT_READY,
                f"No {name.replace('_', ' ')} is known: no market runs from {self.data_dir}.",
                hint=f"Start one with `watt up`, or set {_VARIABLES[name]}.",
            )
        return value

    @property
    def currency(self) -> Currency:
        """The deployment's token; test dollars while there is no deployment."""
        try:
            found = json.loads(Path(self.get("deployment") or "").read_text())
            found = found.get("deployment", found)
            symbol, decimals = str(found["token_symbol"]), int(found["token_decimals"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            return Currency()
        # A file with other decimals is refused where it is used; here it would only fill the memory.
        return Currency(symbol=symbol, decimals=decimals) if 0 <= decimals <= _MOST_DECIMALS else Currency()


def load(data_dir: Path | None = None, **flags: str | Path | None) -> Config:
    """Settings of this run; `flags` are those given on the command line."""
    folder = data_dir or Path(os.environ.get("WATT_HOME") or ".watt")
    profile = _profile(folder / PROFILE_NAME)
    settings = {name: _find(name, flags.get(name), profile) for name in _VARIABLES}
    return Config(folder, settings)


def own_wallet() -> Path:
    """Where `watt wallet new` keeps a wallet, apart from any local market."""
    from platformdirs import user_data_path

    return user_data_path("wattline") / "wallet.json"


def journal_path(config: Config) -> Path:
    """What the key has promised: beside its wallet; the demo buyer's goes with the local market."""
    wallet = config.get("wallet")
    return Path(wallet).with_suffix(".journal.db") if wallet else config.data_dir / "client.db"


def keys_dir(config: Config) -> Path:
    """Where keys made for agents are kept: beside the wallet, or with the local market."""
    wallet = config.get("wallet")
    if wallet:
        return Path(wallet).parent / "keys"
    return config.data_dir / "keys" if config.get("private_key") else own_wallet().parent / "keys"


def _find(name: str, flag: str | Path | None, profile: dict[str, str]) -> Setting:
    if flag is not None:
        return Setting(str(flag), "flag")
    variable = _VARIABLES[name]
    if os.environ.get(variable):
        return Setting(os.environ[variable], variable)
    if name in profile:
        return Setting(profile[name], PROFILE_NAME)
    if name == "gateway_url":
        return Setting(DEFAULT_GATEWAY, "default")
    return Setting(None, "not set")


def _profile(path: Path) -> dict[str, str]:
    """What a running `watt up` wrote down; empty when none runs."""
    try:
        found: Any = json.loads(path.read_text())
        named = {name: str(found[name]) for name in ("gateway_url", "rpc_url", "deployment", "api_key")}
        return named | {"private_key": str(found["buyers"][0]["private_key"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadRequest(
            ErrorCode.INVALID_REQUEST,
            f"{path} cannot be read ({type(error).__name__}).",
            hint=f"Remove it and start again: watt up --data-dir {path.parent}",
        ) from error

"""What was deployed on a chain, by whom and with what: one JSON file a chain."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from platformdirs import user_data_path

from marketplace.chain.deployment import Deployment, save_json
from marketplace.chain.params import CourtParams, DeployParams
from marketplace.protocol.errors import Broken, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex, typed_address


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One contract on the chain.

    Attributes:
        tx_hash: transaction that created it; its maker's for what another contract makes.
        arguments: ABI-encoded constructor arguments, which explorers ask for.
        code_hash: keccak-256 of the code at the address.
    """

    address: str
    tx_hash: bytes
    arguments: bytes
    code_hash: bytes

    def to_json(self) -> dict[str, str]:
        """Field name to JSON value."""
        raw = {name: to_hex(getattr(self, name)) for name in ("tx_hash", "arguments", "code_hash")}
        return {"address": self.address, **raw}

    @classmethod
    def from_json(cls, data: dict[str, str]) -> Self:
        """Of `to_json`. Raises `KeyError` or `ValueError`."""
        raw = {name: from_hex(data[name]) for name in ("tx_hash", "arguments", "code_hash")}
        return cls(address=typed_address(data["address"]), **raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressBook:
    """A deployment with its history. Every process that reads a deployment file reads this one too."""

    network: str
    deployer: str
    deployment: Deployment
    parameters: DeployParams
    contracts: dict[str, Published]

    def save(self, path: Path) -> None:
        """Writes the file in one step, so that nobody reads half of it."""
        save_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Field name to JSON value."""
        return {
            "network": self.network,
            "deployer": self.deployer,
            "deployment": self.deployment.to_json(),
            "parameters": dataclasses.asdict(self.parameters),
            "contracts": {name: found.to_json() for name, found in self.contracts.items()},
        }

    @classmethod
    def load(cls, path: Path) -> Self:
        """Book of a file.

        Raises:
            BadRequest: there is no such file.
            Broken: the file is no address book.
        """
        deployment = Deployment.load(path)
        try:
            data = json.loads(path.read_text())
            return cls(
                network=str(data["network"]),
                deployer=str(data["deployer"]),
                deployment=deployment,
                parameters=_params(data["parameters"]),
                contracts={name: Published.from_json(item) for name, item in data["contracts"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Broken(
                ErrorCode.INTERNAL,
                f"{path} names contracts, but is no address book ({error})",
                hint="Name another file for this deployment: --out FILE",
            ) from error


def usual_path(chain_id: int) -> Path:
    """Where `watt deploy` keeps the book of a chain."""
    return user_data_path("wattline") / "deployments" / f"{chain_id}.json"


def _params(data: dict[str, Any]) -> DeployParams:
    return DeployParams(**data | {"court": CourtParams(**data["court"])})

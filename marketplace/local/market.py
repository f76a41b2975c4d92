"""`market.json`: where everything is while a market runs, and the demo keys of its chain."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from marketplace.local.child import Child
from marketplace.protocol.errors import BadRequest, ErrorCode

VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """A key of the development chain; everybody knows it."""

    address: str
    private_key: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    """One provider's node."""

    name: str
    owner: Wallet
    data_dir: str
    models: list[str]
    node_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEntry:
    """A session the API key spends from."""

    session_id: str
    node_id: int
    deposited_atoms: int
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEntry:
    """A running process and its log."""

    pid: int
    log: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """A running local market.

    Attributes:
        deployment: path of the deployment file.
        buyers: wallets with test dollars in hand; the first has an account and the sessions.
        api_key: bearer key of the gateway, `key_address` on-chain.
    """

    version: int = VERSION
    gateway_url: str
    rpc_url: str
    chain_id: int
    deployment: str
    api_key: str = field(repr=False)
    key_address: str
    buyers: list[Wallet]
    nodes: list[NodeEntry]
    sessions: list[SessionEntry]
    processes: dict[str, ProcessEntry]

    def save(self, path: Path) -> None:
        """Writes the file in one step, for its owner only."""
        write_private(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """The market of a file.

        Raises:
            BadRequest: there is none, or it is not one of ours.
        """
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            data["buyers"] = [Wallet(**w) for w in data["buyers"]]
            data["nodes"] = [NodeEntry(**n | {"owner": Wallet(**n["owner"])}) for n in data["nodes"]]
            data["sessions"] = [SessionEntry(**s) for s in data["sessions"]]
            data["processes"] = {name: ProcessEntry(**p) for name, p in data["processes"].items()}
            return cls(**data)
        except FileNotFoundError as error:
            detail = f"no market at {path}: start one with `watt up`"
            raise BadRequest(ErrorCode.NOT_FOUND, detail) from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            detail = f"{path} is not readable ({error}): remove it and start with `watt up`"
            raise BadRequest(ErrorCode.INVALID_REQUEST, detail) from error


def entries_of(children: dict[str, Child]) -> dict[str, ProcessEntry]:
    """What is written down of running processes."""
    return {name: ProcessEntry(pid=child.pid, log=str(child.command.log)) for name, child in children.items()}


def write_private(path: Path, data: Any) -> None:
    """Writes JSON in one step, for its owner only."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        json.dump(data, opened, indent=2)
        opened.write("\n")
    fresh.replace(path)

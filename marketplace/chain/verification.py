"""What a block explorer needs to verify the contracts: the compiler's exact input for each.

Sources are packaged once under the names the compiler saw, because those names are part of the metadata hash
at the end of the code: another name gives another contract.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from pathlib import Path
from typing import Any, Final

from marketplace.chain.addressbook import AddressBook
from marketplace.chain.artifacts import NAMES
from marketplace.chain.deployment import save_json
from marketplace.protocol.hexes import to_hex

SOURCES: Final = "sources.json"
# The escrow makes its receipt reader, the till its receiver: their code came out of those compilations.
_MADE_BY: Final = {"ReceiptReader": "Escrow", "Receiver": "Till"}
# What is asked for does not change the code; this is enough to compare it.
_OUTPUT: Final = {"*": {"*": ["abi", "metadata", "evm.bytecode", "evm.deployedBytecode"]}}


def standard_input(name: str) -> dict[str, Any]:
    """The compiler's standard-JSON input that gives the code of one of `artifacts.NAMES`."""
    packaged = _packaged()
    build = packaged["builds"][_MADE_BY.get(name, name)]
    return {
        "language": "Solidity",
        "sources": {path: {"content": packaged["sources"][path]} for path in build["sources"]},
        "settings": build["settings"] | {"outputSelection": _OUTPUT},
    }


def compiler_version() -> str:
    """The compiler's full version, as explorers list it."""
    return str(_packaged()["compiler"])


def full_name(name: str) -> str:
    """Source and contract, as in `project/contracts/Escrow.sol:Escrow`."""
    return f"project/contracts/{name}.sol:{name}"


def write_inputs(book: AddressBook, folder: Path) -> list[Path]:
    """Writes one input a contract, and `contracts.json` with the rest of what explorers ask for."""
    written: list[Path] = []
    listed: dict[str, dict[str, str]] = {}
    for name, published in book.contracts.items():
        path = folder / f"{name}.input.json"
        save_json(path, standard_input(name))
        written.append(path)
        listed[name] = {
            "address": published.address,
            "contract": full_name(name),
            "compiler": compiler_version(),
            "input": path.name,
            "constructor_arguments": to_hex(published.arguments),
            "licence": "Apache-2.0",
        }
    save_json(folder / "contracts.json", {"chain_id": book.deployment.chain_id, "contracts": listed})
    return [*written, folder / "contracts.json"]


def compact_sources(build: Path) -> str:
    """Sources and settings of a build's contracts as JSON text, a source a line."""
    builds: dict[str, Any] = {}
    sources: dict[str, str] = {}
    compilers: set[str] = set()
    for name in NAMES:
        if name in _MADE_BY:
            continue
        info, output = _build_info(build, name)
        asked, source = info["input"], full_name(name).split(":")[0]
        needed = _imported(output["sources"], source)
        for path in needed:
            content = asked["sources"][path]["content"]
            if sources.setdefault(path, content) != content:
                raise ValueError(f"{path} changed between the builds of two contracts; build all anew")
        compilers.add(info["solcLongVersion"])
        settings = {key: value for key, value in asked["settings"].items() if key != "outputSelection"}
        builds[name] = {"settings": settings, "sources": needed}
    (compiler,) = compilers
    packaged = {"compiler": compiler, "builds": builds, "sources": dict(sorted(sources.items()))}
    return json.dumps(packaged, indent=0, sort_keys=True) + "\n"


@functools.cache
def _packaged() -> dict[str, Any]:
    text = importlib.resources.files("marketplace.chain.abi").joinpath(SOURCES).read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def _imported(sources: dict[str, Any], first: str) -> list[str]:
    """A source and all it imports; what else was compiled with it may be older than the rest."""
    found: set[str] = set()
    waiting = [first]
    while waiting:
        path = waiting.pop()
        found.add(path)
        nodes = sources[path]["ast"]["nodes"]
        imports = [node["absolutePath"] for node in nodes if node["nodeType"] == "ImportDirective"]
        waiting += [name for name in imports if name not in found]
    return sorted(found)


def _build_info(build: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the compiler was given for a contract, and what it gave."""
    artifact = json.loads((build / f"{name}.sol" / f"{name}.json").read_text())
    folder, build_id = build.parent / "build-info", artifact["buildInfoId"]
    output = json.loads((folder / f"{build_id}.output.json").read_text())["output"]
    return json.loads((folder / f"{build_id}.json").read_text()), output

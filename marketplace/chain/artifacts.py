"""Interfaces and creation code of our contracts, as the package carries them."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from marketplace.protocol.hexes import from_hex, keccak

NAMES: Final = (
    "Escrow",
    "NodeRegistry",
    "Court",
    "ModelRegistry",
    "ReceiptReader",
    "Till",
    "Receiver",
    "TestDollar",
)


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter: its name and canonical Solidity type."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A function, event or error.

    Attributes:
        selector: first 4 bytes of the signature's hash; all 32 for an event.
        indexed: an event's topics after the first; empty for the others.
        fields: names in a function's one returned struct; empty where it returns anything else.
    """

    name: str
    selector: bytes
    inputs: tuple[Param, ...]
    outputs: tuple[Param, ...] = ()
    indexed: tuple[Param, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Types of the inputs; an event's without those indexed."""
        return tuple(p.kind for p in self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One contract's interface. Of overloaded functions `functions` keeps the last."""

    name: str
    creation_code: bytes = field(repr=False)
    constructor: tuple[str, ...]
    functions: dict[str, Entry]
    events: dict[bytes, Entry]
    errors: dict[bytes, Entry]


@functools.cache
def contract(name: str) -> Contract:
    """Interface of one of `NAMES`; read once a process."""
    text = importlib.resources.files("marketplace.chain.abi").joinpath(f"{name}.json").read_text()
    data = json.loads(text)
    items: list[dict[str, Any]] = data["abi"]
    entries = {
        kind: [_entry(i) for i in items if i["type"] == kind] for kind in ("function", "event", "error")
    }
    constructors = [_entry(i) for i in items if i["type"] == "constructor"]
    return Contract(
        name=name,
        creation_code=from_hex(data["bytecode"]),
        constructor=constructors[0].kinds if constructors else (),
        functions={e.name: e for e in entries["function"]},
        events={e.selector: e for e in entries["event"]},
        errors={e.selector: e for e in entries["error"]},
    )


def compact_artifact(path: Path) -> str:
    """Interface and creation code of one build artifact as compact JSON text."""
    data = json.loads(path.read_text())
    return json.dumps({"abi": data["abi"], "bytecode": data["bytecode"]}, separators=(",", ":")) + "\n"


def _entry(item: dict[str, Any]) -> Entry:
    params = [(Param(i["name"], _canonical(i)), bool(i.get("indexed"))) for i in item.get("inputs", ())]
    signature = f"{item.get('name', '')}({','.join(p.kind for p, _ in params)})"
    digest = keccak(signature.encode())
    return Entry(
        name=item.get("name", ""),
        selector=digest if item["type"] == "event" else digest[:4],
        inputs=tuple(p for p, indexed in params if not indexed),
        indexed=tuple(p for p, indexed in params if indexed),
        outputs=tuple(Param(o["name"], _canonical(o)) for o in item.get("outputs", ())),
        fields=_fields(item.get("outputs", ())),
    )


def _fields(outputs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    if len(outputs) != 1 or outputs[0]["type"] != "tuple":
        return ()
    return tuple(component["name"] for component in outputs[0]["components"])


def _canonical(item: dict[str, Any]) -> str:
    kind = str(item["type"])
    if not kind.startswith("tuple"):
        return kind
    return f"({','.join(_canonical(c) for c in item['components'])}){kind[5:]}"

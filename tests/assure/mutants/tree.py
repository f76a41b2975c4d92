"""A Solidity file and its syntax tree, as the operators read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Node = dict[str, Any]

# What carries no behaviour, or is fixed by every caller at compile time.
PASSED_OVER = {
    "ImportDirective",
    "PragmaDirective",
    "StructuredDocumentation",
    "StructDefinition",
    "EnumDefinition",
    "EventDefinition",
    "ErrorDefinition",
    "UsingForDirective",
    "ElementaryTypeName",
    "UserDefinedTypeName",
    "ParameterList",
    "OverrideSpecifier",
}
KIN = {"StructDefinition": "members", "EnumDefinition": "members"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a node stands: its contract and function, and the variables it may name instead of another."""

    contract: str = ""
    function: str = ""
    locals: tuple[Node, ...] = ()
    state: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        """`Contract.function`; the contract alone for what stands in no function."""
        return f"{self.contract}.{self.function}" if self.function else self.contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file; positions are bytes, as the compiler counts."""

    name: str
    code: bytes
    ast: Node
    kin: dict[int, list[Node]] = field(default_factory=dict)

    def span(self, node: Node) -> tuple[int, int]:
        """First byte of a node and the one after its last."""
        start, length, _ = (int(part) for part in node["src"].split(":"))
        return start, start + length

    def text(self, start: int, end: int) -> str:
        return self.code[start:end].decode()

    def of(self, node: Node) -> str:
        """A node's text."""
        return self.text(*self.span(node))


def relations(asts: list[Node]) -> dict[int, list[Node]]:
    """Members of the same struct or enum, by the id of each member."""
    found: dict[int, list[Node]] = {}
    for ast in asts:
        for node in descend(ast):
            if node["nodeType"] in KIN:
                members = node[KIN[node["nodeType"]]]
                found |= {member["id"]: members for member in members}
    return found


def visit(ast: Node) -> Iterator[tuple[Node, Place]]:
    """Every node that may behave otherwise, outer ones first."""
    for unit in ast["nodes"]:
        if unit["nodeType"] == "ContractDefinition" and unit["contractKind"] != "interface":
            state = tuple(n for n in unit["nodes"] if n["nodeType"] == "VariableDeclaration")
            for node in unit["nodes"]:
                yield from _visit(node, _entered(node, Place(contract=unit["name"], state=state)))
        elif unit["nodeType"] in ("FunctionDefinition", "VariableDeclaration"):
            yield from _visit(unit, _entered(unit, Place(contract="(file)")))


def descend(node: Any) -> Iterator[Node]:
    """A node and everything below it."""
    if isinstance(node, dict):
        if "nodeType" in node:
            yield node
        for value in node.values():
            yield from descend(value)
    elif isinstance(node, list):
        for value in node:
            yield from descend(value)


def type_of(node: Node) -> str:
    """The compiler's name of a node's type, without where it is kept."""
    described = str((node.get("typeDescriptions") or {}).get("typeString") or "")
    for place in (" storage ref", " storage pointer", " memory", " calldata"):
        described = described.removesuffix(place)
    return described


def _visit(node: Any, place: Place) -> Iterator[tuple[Node, Place]]:
    if isinstance(node, list):
        for value in node:
            yield from _visit(value, place)
    elif isinstance(node, dict) and node.get("nodeType") not in PASSED_OVER:
        if "nodeType" in node:
            yield node, place
        for value in node.values():
            if isinstance(value, dict | list):
                yield from _visit(value, place)


def _entered(node: Node, place: Place) -> Place:
    if node["nodeType"] not in ("FunctionDefinition", "ModifierDefinition"):
        return place
    declared = tuple(n for n in descend(node) if n["nodeType"] == "VariableDeclaration")
    name = node["name"] or node.get("kind", "")
    return Place(contract=place.contract, function=name, locals=declared, state=place.state)

"""What the code may not contain, and escapes that may only become fewer."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest

from tests.house.tree import ROOT, parsed, python_files, shown, solidity_files

ALLOWANCES = tomllib.loads((ROOT / "tests" / "house" / "allowances.toml").read_text())
ESCAPES = {
    "noqa": r"#\s*noqa\b",
    "type_ignore": r"#\s*type:\s*ignore",
    "broad_except": r"except (Base)?Exception\b|except:",
    "solhint_disable": r"solhint-disable",
}
MONEY_ROOMS = ("marketplace/protocol", "marketplace/settlement", "worker/settle/rules.py")
NOT_MONEY = {"marketplace/protocol/answers.py": "the numbers of an embedding"}
CLOCKS = {"time", "datetime", "random", "secrets", "os", "socket", "uuid", "asyncio"}


@pytest.mark.parametrize("escape", ESCAPES)
def test_escapes_are_as_many_as_committed(escape: str) -> None:
    """More is refused; fewer means: lower the number in allowances.toml in the same commit."""
    files = [*python_files("marketplace", "worker"), *solidity_files()]
    found = {shown(p): len(re.findall(ESCAPES[escape], p.read_text())) for p in files}
    places = {name: count for name, count in found.items() if count}
    assert sum(places.values()) == ALLOWANCES[escape], places


def test_nothing_is_left_unfinished() -> None:
    mark = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "not" + " implemented")))
    files = [
        *python_files(),
        *solidity_files(),
        *solidity_files("tests/contracts"),
        *solidity_files("tests/proofs"),
    ]
    assert [shown(p) for p in files if mark.search(p.read_text())] == []


@pytest.mark.parametrize("room", MONEY_ROOMS)
def test_money_never_meets_a_fraction(room: str) -> None:
    found = [
        f"{shown(path)}:{node.lineno} {what}"
        for path in python_files(room)
        if shown(path) not in NOT_MONEY
        for node in ast.walk(parsed(path))
        if (what := _fraction(node))
    ]
    assert found == [], "amounts are whole atoms"


def test_protocol_and_rules_take_time_and_chance_as_arguments() -> None:
    files = [*python_files("marketplace/protocol"), *python_files("marketplace", "worker")]
    pure = [p for p in files if "protocol" in p.parts or p.name == "rules.py"]
    assert len(pure) > len(python_files("marketplace/protocol"))
    found = {f"{shown(p)} imports {name}" for p in pure for name in _imports(parsed(p)) if name in CLOCKS}
    assert found == set()


def test_no_address_of_a_package_registry_is_written_down() -> None:
    hosts = re.compile(r"(pypi|npmjs|pythonhosted|debian)\.(org|com)|registry\.[a-z]", re.IGNORECASE)
    names = ("pyproject.toml", "constraints.txt", "package.json", "package-lock.json", ".npmrc", ".ci/run")
    files = [ROOT / name for name in names] + sorted((ROOT / "scripts").iterdir())
    assert [shown(p) for p in files if p.is_file() and hosts.search(p.read_text())] == []


def test_fraction_finder_finds_each_kind() -> None:
    planted = "from decimal import Decimal\na = 1 / 2\nb = 0.5\nc = float('1')\nd = a\nd /= 2\ne: float = 1\n"
    kinds = [what for node in ast.walk(ast.parse(planted)) if (what := _fraction(node))]
    assert sorted(kinds) == ["/", "/", "Decimal", "a fraction", "float", "float"]


def _fraction(node: ast.AST) -> str:
    if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
        return "" if _is_path(node) else "/"
    if isinstance(node, ast.Constant) and isinstance(node.value, float):
        return "a fraction"
    if isinstance(node, ast.Name) and node.id == "float":
        return "float"
    if isinstance(node, ast.ImportFrom) and node.module == "decimal":
        return "Decimal"
    return ""


def _is_path(node: ast.BinOp | ast.AugAssign) -> bool:
    return (
        isinstance(node, ast.BinOp)
        and isinstance(node.right, ast.Constant | ast.JoinedStr)
        and (isinstance(node.right, ast.JoinedStr) or isinstance(node.right.value, str))
    )


def _imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_import_finder_sees_imports_inside_functions() -> None:
    assert _imports(ast.parse("def f():\n    import time\n    from os import path\n")) == {"time", "os"}

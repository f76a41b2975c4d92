"""The repository as the house tests see it: files, syntax trees, words."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("marketplace", "worker")


def python_files(*folders: str) -> list[Path]:
    """Our Python files below the named folders; by default packages, tests, scripts and examples."""
    names = folders or (*PACKAGES, "tests", "scripts", "examples")
    found = (p for name in names for p in _below(ROOT / name))
    return [p for p in found if "__pycache__" not in p.parts]


def _below(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


def solidity_files(folder: str = "contracts") -> list[Path]:
    """Our Solidity files."""
    return sorted((ROOT / folder).rglob("*.sol"))


def shown(path: Path) -> str:
    """Path as it is named in messages."""
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Syntax tree of a file."""
    return ast.parse(path.read_text(), filename=str(path))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def solidity_code(path: Path) -> str:
    """Source without comments."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)

"""Branching specifications: leaves of a `.tree` are the tests beside it, and no error lacks a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.house.tree import ROOT, solidity_code, solidity_files

TESTS = ROOT / "tests" / "contracts"
TREES = sorted(TESTS.rglob("*.tree"))
TESTED = ("ICourt", "IEscrow", "IModelRegistry", "INodeRegistry", "IReceiptReader", "IReceiver", "ITill")
LINE = re.compile(r"^((?:│   |    )*)[├└]── (.+)$")


@pytest.mark.parametrize("tree", TREES, ids=lambda path: path.stem)
def test_leaves_of_a_tree_are_the_tests_beside_it(tree: Path) -> None:
    source = solidity_code(tree.with_suffix(".t.sol"))
    contract, leaves = read(tree.read_text())
    assert f"contract {contract} is " in source
    assert sorted(leaves) == sorted(re.findall(r"\bfunction test(?:Fuzz)?_(\w+)\(", source))


@pytest.mark.parametrize("interface", TESTED)
def test_every_error_is_provoked_by_a_test(interface: str) -> None:
    declared = re.findall(r"\berror (\w+)\(", solidity_code(ROOT / f"contracts/interfaces/{interface}.sol"))
    tests = "\n".join(solidity_code(path) for path in solidity_files("tests/contracts"))
    expected = set(re.findall(rf"\b{interface}\.(\w+)\.selector", tests))
    assert declared
    assert set(declared) - expected == set()


def test_reader_of_trees_tells_conditions_from_leaves() -> None:
    text = "ATest\n├── when a\n│   ├── settle pays\n│   └── when b\n│       └── the 2nd no-op\n└── last\n"
    assert read(text) == ("ATest", ["SettlePays", "The2ndNoOp", "Last"])


def test_reader_of_trees_refuses_a_condition_without_leaves() -> None:
    with pytest.raises(AssertionError, match="leads nowhere"):
        read("ATest\n├── when a\n└── last\n")


def read(text: str) -> tuple[str, list[str]]:
    """Name of the contract, and the leaves as names of tests."""
    root, *lines = text.splitlines()
    matches = [LINE.match(line) for line in lines]
    assert all(matches), "a line is not of a tree"
    nodes = [(len(m[1]), m[2]) for m in matches if m]
    leaves = []
    for (depth, words), (below, _) in zip(nodes, [*nodes[1:], (0, "")], strict=True):
        is_condition = words.startswith("when ")
        assert is_condition == (below > depth), f"{words!r} leads nowhere, or further than a leaf"
        if not is_condition:
            leaves.append("".join(w[0].upper() + w[1:] for w in re.findall(r"\w+", words.replace("'", ""))))
    return root, leaves

"""Bars of size: what does not fit wants a wall."""

from __future__ import annotations

from tests.house.tree import functions, parsed, python_files, shown, solidity_files

FILE_LINES = 400
FUNCTION_LINES = 60
WIDER = {"contracts/interfaces/IEscrow.sol": 600}


def test_no_file_is_longer_than_its_bar() -> None:
    files = [
        *python_files(),
        *solidity_files(),
        *solidity_files("tests/contracts"),
        *solidity_files("tests/proofs"),
    ]
    lengths = {shown(p): len(p.read_text().splitlines()) for p in files}
    assert {n: count for n, count in lengths.items() if count > WIDER.get(n, FILE_LINES)} == {}


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = {
        f"{shown(path)}:{function.lineno} {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in python_files()
        for function in functions(parsed(path))
    }
    assert {name: count for name, count in long.items() if count > FUNCTION_LINES} == {}

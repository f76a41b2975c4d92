"""Solidity and Python say the same: typed messages, enumerations, events, errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from marketplace.chain import artifacts
from marketplace.protocol.eip712 import Domain, Message, type_string
from marketplace.protocol.messages import ON_CHAIN, ReceiptStatus, SettleStatus
from marketplace.protocol.quotes import Payer, Quote
from tests.house.tree import ROOT, shown, solidity_code, solidity_files

ENUMS = {"SettleStatus": "uint8"}
MESSAGES = "".join(solidity_code(ROOT / f"contracts/types/{name}.sol") for name in ("Messages", "Quotes"))
SIGNED = (*ON_CHAIN, Quote, Payer)


@pytest.mark.parametrize("message", SIGNED, ids=lambda m: m.__name__)
def test_type_string_is_the_one_solidity_hashes(message: type[Message]) -> None:
    literals = "".join(re.findall(r'"([^"]*)"', _type_hash_constant(message.__name__)))
    assert literals == type_string(message)


@pytest.mark.parametrize("message", SIGNED, ids=lambda m: m.__name__)
def test_struct_fields_are_the_signed_ones(message: type[Message]) -> None:
    found = re.search(rf"struct {message.__name__} \{{(.*?)\}}", MESSAGES, re.DOTALL)
    assert found, f"no struct {message.__name__} in Messages.sol"
    fields = ",".join(" ".join(line.split()) for line in found[1].split(";") if line.strip())
    assert f"{message.__name__}({fields})" == type_string(message)


def test_domain_is_the_one_python_signs_for() -> None:
    escrow = solidity_code(ROOT / "contracts/Escrow.sol")
    assert 'EIP712("Wattline", "1")' in escrow
    assert '("Wattline", "1", chainId, escrow)' in (Domain.separator.__doc__ or "")


def test_receipt_status_numbers_are_the_ones_pricing_uses() -> None:
    pricing = solidity_code(ROOT / "contracts/libraries/Pricing.sol")
    assert re.search(r"\bstatus == 0\b|STATUS_FAILED|FAILED", pricing)
    assert ReceiptStatus.FAILED == 0


def test_python_knows_every_settle_status() -> None:
    names = [status.name for status in SettleStatus]
    sessions = solidity_code(ROOT / "contracts/types/Sessions.sol")
    found = re.search(r"enum SettleStatus \{(.*?)\}", sessions, re.DOTALL)
    assert found
    members = [name.strip() for name in found[1].split(",")]
    assert [re.sub(r"[^a-z]", "", name.lower()) for name in names] == [name.lower() for name in members]


def test_python_numbers_settle_statuses_as_solidity_does() -> None:
    assert [status.value for status in SettleStatus] == list(range(len(SettleStatus)))


@pytest.mark.parametrize("contract", ["Escrow", "ModelRegistry", "NodeRegistry", "Till"])
@pytest.mark.parametrize("kind", ["event", "error"])
def test_decoder_knows_every_declaration(contract: str, kind: str) -> None:
    source = solidity_code(ROOT / f"contracts/interfaces/I{contract}.sol")
    found = re.finditer(rf"\b{kind} (\w+)\((.*?)\);", source, re.DOTALL)
    declared = {(m[1], _types(m[2])) for m in found}
    known = artifacts.contract(contract)
    entries = (known.events if kind == "event" else known.errors).values()
    decoded = {(e.name, tuple(sorted(p.kind for p in (*e.indexed, *e.inputs)))) for e in entries}
    assert declared
    assert declared <= decoded


def test_every_error_is_named_after_its_contract() -> None:
    named = {
        (shown(path), error)
        for path in solidity_files()
        if "mocks" not in path.parts
        for error in re.findall(r"\berror (\w+)\(", solidity_code(path))
    }
    assert {pair for pair in named if pair[1].split("_")[0] != Path(pair[0]).stem.removeprefix("I")} == set()


def _type_hash_constant(name: str) -> str:
    constant = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
    found = re.search(rf"{constant}_TYPEHASH\s*=\s*keccak256\((.*?)\);", MESSAGES, re.DOTALL)
    assert found, f"no {constant}_TYPEHASH in Messages.sol"
    return found[1]


def _types(parameters: str) -> tuple[str, ...]:
    kinds = (p.split()[0] for p in parameters.split(",") if p.strip())
    return tuple(sorted(ENUMS.get(kind, kind) for kind in kinds))

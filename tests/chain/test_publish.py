"""Deploying by a network's file: everything checked first, everything written down, all of it verifiable."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marketplace.chain import networks
from marketplace.chain.addressbook import AddressBook
from marketplace.chain.artifacts import NAMES
from marketplace.chain.client import ChainClient
from marketplace.chain.deploy import plan, plan_network, publish
from marketplace.chain.deployment import Deployment
from marketplace.chain.ethereum import Ethereum
from marketplace.chain.params import CourtParams, DeployParams, check
from marketplace.chain.rpc import Rpc
from marketplace.chain.verification import standard_input, write_inputs
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, from_hex, keccak
from marketplace.protocol.signing import Signer
from tests.hardhat import NODE, ROOT, TREASURY, HardhatNode, key

OWN = Signer(b"\x07" * 32)
# Each one step beyond its rule.
STRANGE = {
    "a challenge shorter than a minute": {"challenge_seconds": 59},
    "sessions longer than the escrow allows": {"max_session_seconds": 72 * 3600 + 1},
    "sessions that are over at once": {"max_session_seconds": 0},
    "a grace longer than the escrow allows": {"grace_seconds": 72 * 3600 + 1},
    "stake that leaves before its cases end": {"unstake_delay_seconds": (72 + 36) * 3600 + 900},
    "cases longer than the dispute time": {"dispute_seconds": 28 * 3600 - 1},
    "a minimum stake nobody can have": {"min_stake_atoms": 1 << 64},
    "no treasury": {"treasury": ZERO_ADDRESS},
    "no token": {"token": ZERO_ADDRESS},
    "a bond that does not pay the jurors": {"court": CourtParams(bond_atoms=14_999_999)},
    "a deposit below the fee": {"court": CourtParams(juror_deposit_atoms=4_999_999)},
    "jurors that work for nothing": {"court": CourtParams(juror_fee_atoms=0)},
    "jurors without weight": {"court": CourtParams(full_weight_atoms=0)},
    "an answer window too short": {"court": CourtParams(answer_seconds=29)},
    "a draw window too short": {"court": CourtParams(draw_seconds=29)},
    "a commit window too short": {"court": CourtParams(commit_seconds=29)},
    "a reveal window too short": {"court": CourtParams(reveal_seconds=29)},
}
_U32, _U48, _U64 = (1 << 32) - 1, (1 << 48) - 1, (1 << 64) - 1
# As far as the rules go, all at once.
EXTREME = {
    "least": {
        "min_stake_atoms": 0,
        "max_session_seconds": 1,
        "grace_seconds": 0,
        "challenge_seconds": 60,
        "dispute_seconds": 2 * 60 + 11 * 30,
        "unstake_delay_seconds": 1 + 2 * 60 + 11 * 30 + 1,
        "court": CourtParams.of([3, 1, 1, 1, 30, 30, 30, 30]),
    },
    "most": {
        "min_stake_atoms": _U64,
        "max_session_seconds": 72 * 3600,
        "grace_seconds": 72 * 3600,
        "challenge_seconds": _U32,
        "dispute_seconds": _U48 - 2 * 72 * 3600 - 1,
        "unstake_delay_seconds": _U48,
        "court": CourtParams.of([_U64, _U64 // 3, _U64, _U64, _U32, _U32, _U32, _U32]),
    },
}


@pytest.fixture(scope="module")
def node() -> Iterator[HardhatNode]:
    with HardhatNode() as fresh:
        yield fresh


@pytest.fixture(scope="module")
def book(node: HardhatNode, tmp_path_factory: pytest.TempPathFactory) -> AddressBook:
    path = tmp_path_factory.mktemp("book") / "31337.json"
    made = publish(node.url, key(0), networks.load("local"), TREASURY, path)
    assert AddressBook.load(path) == made
    assert Deployment.load(path) == made.deployment
    return made


# ---------------------------------------------------------------------------------------- without a chain


def test_defaults_and_packaged_networks_satisfy_the_rules() -> None:
    check(DeployParams(treasury=TREASURY))
    assert networks.names() == ["base", "base-sepolia", "local"]
    for name in networks.names():
        check(networks.load(name).params(TREASURY))


def test_local_network_is_what_watt_up_deploys() -> None:
    assert networks.load("local").params(TREASURY) == DeployParams.local(TREASURY)


@pytest.mark.parametrize("name", STRANGE)
def test_parameters_the_contracts_would_refuse_are_refused_first(name: str) -> None:
    changed: dict[str, Any] = STRANGE[name]
    with pytest.raises(BadRequest) as caught:
        check(dataclasses.replace(DeployParams(treasury=TREASURY), **changed))
    assert len(caught.value.values["broken"]) == 1


def test_all_broken_rules_are_named_at_once() -> None:
    with pytest.raises(BadRequest) as caught:
        check(DeployParams(treasury=ZERO_ADDRESS, challenge_seconds=1, max_session_seconds=0))
    assert len(caught.value.values["broken"]) == 3


@pytest.mark.parametrize(
    "text",
    [
        "chain_id = 'one'",
        "chain_id = 1\ncolour = 'red'",
        "chain_id = 1\n[court]\nbond = 5",
        "chain_id",
        "chain_id = 1\ntoken = '0x12'",
        "chain_id = 1\n[market]\nmin_stake_atoms = true",
        "confirmations = 1",
    ],
)
def test_network_file_with_anything_odd_in_it_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text(text)
    with pytest.raises(BadRequest, match="network odd"):
        networks.load(str(tmp_path / "odd.toml"))


def test_unknown_network_is_answered_with_the_known_ones() -> None:
    with pytest.raises(BadRequest, match="base, base-sepolia, local"):
        networks.load("mainnet")


# ------------------------------------------------------------------------------------------- on a chain


# Left out: the registry takes that stake, and no node could ever serve; no token is a test dollar here.
@pytest.mark.chain
@pytest.mark.parametrize("name", sorted(STRANGE.keys() - {"a minimum stake nobody can have", "no token"}))
def test_constructors_refuse_what_the_check_refuses(
    name: str, node: HardhatNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So the check is not stricter than the law; that it is not laxer, the next test shows."""
    monkeypatch.setattr("marketplace.chain.deploy.check", lambda params: None)
    with pytest.raises(BadRequest) as caught:
        publish_with(STRANGE[name], node, monkeypatch, tmp_path)
    assert caught.value.code is ErrorCode.TRANSACTION_REVERTED
    assert not (tmp_path / "book.json").exists()


@pytest.mark.chain
@pytest.mark.parametrize("name", EXTREME)
def test_constructors_take_the_most_and_the_least_that_the_check_takes(
    name: str, node: HardhatNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish_with(EXTREME[name], node, monkeypatch, tmp_path)
    assert AddressBook.load(tmp_path / "book.json").parameters.court == EXTREME[name]["court"]


def publish_with(
    changed: dict[str, Any], node: HardhatNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    params = dataclasses.replace(DeployParams(treasury=TREASURY), **changed)
    monkeypatch.setattr(networks.Network, "params", lambda network, treasury: params)
    publish(node.url, key(0), networks.load("local"), TREASURY, tmp_path / "book.json")


@pytest.mark.chain
def test_nothing_is_sent_where_the_book_cannot_be_kept(node: HardhatNode, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    chain = Ethereum(Rpc(node.url))
    nonce = chain.nonce(key(0).address)
    for path in (tmp_path / "file" / "book.json", tmp_path):
        with pytest.raises(BadRequest, match="cannot be written"):
            publish(node.url, key(0), networks.load("local"), TREASURY, path)
    assert chain.nonce(key(0).address) == nonce


@pytest.mark.chain
def test_book_is_kept_although_the_chain_stops_answering(
    node: HardhatNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def down(_: ChainClient) -> None:
        raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "down")

    with monkeypatch.context() as patch:
        patch.setattr(ChainClient, "check", down)
        with pytest.raises(ChainTrouble, match="down"):
            publish(node.url, key(0), networks.load("local"), TREASURY, tmp_path / "book.json")
    ChainClient(node.url, AddressBook.load(tmp_path / "book.json").deployment).check()


@pytest.mark.chain
def test_node_that_lags_is_asked_again_and_empty_code_is_refused(
    node: HardhatNode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, asked = Ethereum.code, dict[str, int]()

    def late(self: Ethereum, address: str) -> bytes:
        asked[address] = asked.get(address, 0) + 1
        if asked[address] == 1:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "down")
        return real(self, address) if asked[address] > 2 else b""

    monkeypatch.setattr("marketplace.chain.deploy._LAG_PAUSES_SECONDS", (0, 0))
    monkeypatch.setattr(Ethereum, "code", late)
    made = publish(node.url, key(0), networks.load("local"), TREASURY, tmp_path / "book.json")
    assert keccak(b"") not in {item.code_hash for item in made.contracts.values()}
    monkeypatch.setattr(Ethereum, "code", lambda *_: b"")
    with pytest.raises(ChainTrouble, match=r"TestDollar was deployed by 0x\w+ and is gone again"):
        publish(node.url, key(0), networks.load("local"), TREASURY, tmp_path / "none.json")


@pytest.mark.chain
def test_plan_foretells_addresses_and_bounds_the_gas(node: HardhatNode, tmp_path: Path) -> None:
    chain = Ethereum(Rpc(node.url))
    made = plan_network(chain, key(3).address, networks.load("local"), TREASURY)
    height = chain.head().number
    published = publish(node.url, key(3), networks.load("local"), TREASURY, tmp_path / "book.json")
    for name, address in made.addresses.items():
        assert published.contracts[name].address == address
    hashes = {item.tx_hash for item in published.contracts.values()}
    seen = [chain.tx_receipt(tx_hash) for tx_hash in hashes]
    used = sum(found.gas_used for found in seen if found)
    assert used <= made.gas <= used * 3 // 2
    assert chain.head().number == height + 6


@pytest.mark.chain
def test_plan_refuses_a_purse_that_is_too_small(node: HardhatNode) -> None:
    node.set_balance(OWN.address, 10**12)
    with pytest.raises(BadRequest, match="may need"):
        plan(Ethereum(Rpc(node.url)), OWN.address, DeployParams.local(TREASURY))


@pytest.mark.chain
def test_plan_refuses_another_chain_and_another_token(node: HardhatNode, book: AddressBook) -> None:
    chain, local = Ethereum(Rpc(node.url)), networks.load("local")
    with pytest.raises(ChainTrouble) as caught:
        plan_network(chain, key(0).address, networks.load("base"), TREASURY)
    assert caught.value.code is ErrorCode.WRONG_CHAIN
    dollar = dataclasses.replace(local, token=book.deployment.token, token_symbol="USDC", token_decimals=6)
    with pytest.raises(BadRequest, match="is TUSD with 6 decimals, not USDC with 6"):
        plan_network(chain, key(0).address, dollar, TREASURY)
    nothing = dataclasses.replace(local, token=key(5).address)
    with pytest.raises(BadRequest, match="does not answer"):
        plan_network(chain, key(0).address, nothing, TREASURY)


@pytest.mark.chain
def test_book_says_what_is_on_the_chain(node: HardhatNode, book: AddressBook) -> None:
    chain = ChainClient(node.url, book.deployment)
    assert set(book.contracts) == set(NAMES)
    for published in book.contracts.values():
        assert published.code_hash == keccak(chain.code(published.address)) != keccak(b"")
    assert (book.deployer, book.network) == (key(0).address, "local")
    assert book.parameters == DeployParams.local(TREASURY)


@pytest.mark.chain
def test_verification_input_compiles_to_the_deployed_code(
    node: HardhatNode, book: AddressBook, tmp_path: Path
) -> None:
    """With npm's compiler alone: the bytes that were sent and, but for immutables, those that are there."""
    chain = ChainClient(node.url, book.deployment)
    write_inputs(book, tmp_path / "verify")
    listed = json.loads((tmp_path / "verify" / "contracts.json").read_text())["contracts"]
    assert set(listed) == set(book.contracts)
    inputs = {name: (tmp_path / "verify" / item["input"]).read_text() for name, item in listed.items()}
    outputs = {text: compiled(text) for text in set(inputs.values())}
    for name, item in listed.items():
        source, contract = item["contract"].split(":")
        evm = outputs[inputs[name]]["contracts"][source][contract]["evm"]
        creation = from_hex("0x" + evm["bytecode"]["object"])
        if name not in ("ReceiptReader", "Receiver"):
            sent = chain.tx_input(book.contracts[name].tx_hash)
            assert sent == creation + from_hex(item["constructor_arguments"])
        runtime = from_hex("0x" + evm["deployedBytecode"]["object"])
        places = evm["deployedBytecode"]["immutableReferences"]
        assert masked(chain.code(item["address"]), places) == masked(runtime, places)


def test_input_names_all_that_shapes_the_code() -> None:
    settings = standard_input("Escrow")["settings"]
    assert settings["viaIR"] is True
    assert settings["evmVersion"] == "cancun"
    assert settings["optimizer"]["enabled"] is True
    assert settings["remappings"]
    assert standard_input("ReceiptReader") == standard_input("Escrow")


def compiled(text: str) -> Any:
    read = "require('fs').readFileSync(0, 'utf8')"
    script = f"process.stdout.write(require('solc').compile({read}))"
    done = subprocess.run(
        [str(NODE), "-e", script],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    output = json.loads(done.stdout)
    assert [e for e in output.get("errors", []) if e["severity"] == "error"] == []
    return output


def masked(code: bytes, places: dict[str, list[dict[str, int]]]) -> bytes:
    blank = bytearray(code)
    for spot in (s for spots in places.values() for s in spots):
        blank[spot["start"] : spot["start"] + spot["length"]] = bytes(spot["length"])
    return bytes(blank)

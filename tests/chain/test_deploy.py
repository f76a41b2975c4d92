"""Deploying once, and refusing every chain but the deployment's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.chain.client import ChainClient
from marketplace.chain.deploy import DeployParams, deploy
from marketplace.chain.deployment import Deployment
from marketplace.chain.ethereum import Ethereum, TxSeen
from marketplace.chain.journal import MemoryJournal
from marketplace.chain.rpc import Rpc
from marketplace.chain.sender import Sender
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.signing import Signer
from tests.chain.test_rpc import FakeEndpoint, result
from tests.hardhat import TREASURY, Chain, HardhatNode, deploy_on, key

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def node() -> Iterator[HardhatNode]:
    with HardhatNode() as fresh:
        yield fresh


def refused(url: str, deployment: Deployment) -> ChainTrouble:
    with pytest.raises(ChainTrouble) as caught:
        ChainClient(url, deployment).check()
    assert caught.value.code is ErrorCode.WRONG_CHAIN
    return caught.value


def test_deploy_twice_with_a_file_deploys_once(node: HardhatNode, tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    first = deploy_on(node, path).deployment
    height = int(node.rpc.read("eth_blockNumber"), 16)
    assert deploy_on(node, path).deployment == first == Deployment.load(path)
    assert int(node.rpc.read("eth_blockNumber"), 16) == height


def test_deployment_says_what_the_contracts_say(node: HardhatNode) -> None:
    here = deploy_on(node)
    deployment = here.deployment
    here.client.check()
    assert (deployment.token_symbol, deployment.token_decimals) == ("TUSD", 6)
    assert (deployment.max_session_seconds, deployment.grace_seconds) == (86_400, 120)
    assert deployment.treasury == TREASURY
    first = here.client.block(deployment.deployed_block)
    assert first is not None
    assert here.client.fee_bps() == here.client.fees_atoms() == here.client.node_count() == 0


def test_deploy_with_a_token_of_its_own_leaves_the_test_dollar_out(node: HardhatNode) -> None:
    token = deploy_on(node).deployment.token
    params = dataclasses.replace(DeployParams.local(TREASURY), token=token.lower())
    assert deploy(node.url, key(0), params).token == token


def test_defaults_satisfy_the_contracts(node: HardhatNode) -> None:
    deploy(node.url, key(0), DeployParams(treasury=TREASURY))


def test_check_refuses_another_chain_id(node: HardhatNode) -> None:
    deployment = deploy_on(node).deployment
    assert "chain id" in refused(node.url, dataclasses.replace(deployment, chain_id=1)).detail


def test_check_refuses_another_genesis(node: HardhatNode) -> None:
    deployment = deploy_on(node).deployment
    assert "block 0" in refused(node.url, dataclasses.replace(deployment, genesis_hash=b"\0" * 32)).detail


def test_check_refuses_contracts_that_are_gone(node: HardhatNode) -> None:
    before = node.snapshot()
    deployment = deploy_on(node).deployment
    node.revert(before)
    assert "no code" in refused(node.url, deployment).detail


def test_check_refuses_another_escrow(node: HardhatNode) -> None:
    one, two = deploy_on(node).deployment, deploy_on(node).deployment
    assert (
        "not this deployment's escrow"
        in refused(node.url, dataclasses.replace(one, registry=two.registry)).detail
    )
    assert refused(node.url, dataclasses.replace(one, escrow=one.token))


def test_a_restarted_chain_is_refused_and_deployed_to_anew(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    with HardhatNode() as first:
        former = deploy_on(first, path).deployment
    with HardhatNode(first.port) as second:
        assert "block 0" in refused(second.url, former).detail
        fresh = deploy_on(second, path)
        assert fresh.deployment.genesis_hash != former.genesis_hash
        fresh.client.check()
        assert Deployment.load(path) == fresh.deployment


def test_deploy_keeps_the_file_when_the_chain_does_not_answer(node: HardhatNode, tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    deployment = deploy_on(node, path).deployment
    with HardhatNode() as gone:
        url = gone.url
    with pytest.raises(ChainTrouble) as caught:
        deploy(url, key(0), DeployParams.local(TREASURY), path=path)
    assert caught.value.code is ErrorCode.CHAIN_UNAVAILABLE
    assert Deployment.load(path) == deployment


@pytest.fixture
def mainnet() -> Iterator[FakeEndpoint]:
    """An endpoint that says it is chain 1."""
    fake = FakeEndpoint()
    fake.answer = lambda method, _p: result("0x1" if method == "eth_chainId" else None)
    yield fake
    fake.stop()


def test_deploy_refuses_test_keys_where_money_is_real(mainnet: FakeEndpoint) -> None:
    with pytest.raises(BadRequest, match="well-known"):
        deploy(mainnet.url, key(0), DeployParams.local(TREASURY))


def test_sender_refuses_test_keys_where_money_is_real(mainnet: FakeEndpoint) -> None:
    chain = Ethereum(Rpc(mainnet.url))
    with pytest.raises(BadRequest, match="well-known"):
        Sender(chain, key(1), MemoryJournal(), lambda: 0)
    Sender(chain, Signer(b"\x07" * 32), MemoryJournal(), lambda: 0)


def test_deploy_makes_no_test_dollar_where_money_is_real(mainnet: FakeEndpoint) -> None:
    with pytest.raises(BadRequest, match="name the token"):
        deploy(mainnet.url, Signer(b"\x07" * 32), DeployParams(treasury=TREASURY))


def test_deploy_replaces_no_file_where_money_is_real(
    mainnet: FakeEndpoint, node: HardhatNode, tmp_path: Path
) -> None:
    path = tmp_path / "deployment.json"
    former = deploy_on(node, path).deployment
    with pytest.raises(ChainTrouble) as caught:
        deploy(mainnet.url, Signer(b"\x07" * 32), DeployParams(treasury=TREASURY), path=path)
    assert caught.value.code is ErrorCode.WRONG_CHAIN
    assert Deployment.load(path) == former


def test_deploy_notices_that_its_key_was_used_elsewhere(
    node: HardhatNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marketplace.chain.deploy.get_create_address", lambda *_: key(9).address)
    with pytest.raises(BadRequest, match="NodeRegistry_WrongEscrow"):
        deploy(node.url, key(0), DeployParams.local(TREASURY))


def test_deploy_says_so_when_what_it_deployed_is_gone(
    node: HardhatNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Ethereum.tx_receipt

    def without_contract(self: Ethereum, tx_hash: bytes) -> TxSeen | None:
        seen = real(self, tx_hash)
        return dataclasses.replace(seen, contract=None) if seen else None

    monkeypatch.setattr("marketplace.chain.deploy._LAG_PAUSES_SECONDS", ())
    monkeypatch.setattr(Ethereum, "tx_receipt", without_contract)
    with pytest.raises(ChainTrouble, match="gone again"):
        deploy(node.url, key(0), DeployParams.local(TREASURY))


def test_deploy_needs_a_first_block(node: HardhatNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ethereum, "block", lambda *_: None)
    with pytest.raises(ChainTrouble, match="no block 0"):
        deploy(node.url, key(0), DeployParams.local(TREASURY))


def test_stopped_node_leaves_no_process(chain: Chain) -> None:
    node = HardhatNode().start()
    pid = node.pid
    assert pid is not None
    assert Path(f"/proc/{pid}").exists()
    node.stop()
    assert not Path(f"/proc/{pid}").exists()
    assert node.pid is None

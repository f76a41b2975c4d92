from __future__ import annotations

from pathlib import Path

import pytest

from marketplace.client.connect import connect
from marketplace.client.problems import hint_of
from marketplace.client.wallet import BuyerWallet, Sent
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import from_hex
from tests.hardhat import Chain, chain, free_port, hardhat_node, key  # noqa: F401 - fixtures

pytestmark = pytest.mark.chain


@pytest.fixture
def wallet(chain: Chain) -> BuyerWallet:  # noqa: F811 - the fixture above
    return BuyerWallet.open(key(9), chain.url, chain.deployment)


def test_money_goes_into_the_account_and_out_again(wallet: BuyerWallet) -> None:
    wallet.faucet("10")
    wallet.deposit("4")
    wallet.deposit("2.5")
    wallet.withdraw("1.5")
    balance = wallet.balance()
    assert (balance.account_atoms, balance.token_atoms) == (5_000_000, 5_000_000)
    assert balance.gas_wei > 0


def test_withdrawal_can_go_to_another_address(wallet: BuyerWallet, chain: Chain) -> None:  # noqa: F811
    wallet.faucet("1")
    wallet.deposit("1")
    wallet.withdraw("0.25", key(15).address)
    assert chain.client.token_balance_atoms(key(15).address) == 250_000


def test_more_than_there_is_cannot_move(wallet: BuyerWallet) -> None:
    for move in (wallet.deposit, wallet.withdraw):
        with pytest.raises(BadRequest) as caught:
            move("1")
        assert caught.value.code is ErrorCode.SESSION_UNDERFUNDED
        assert "there is 0.00" in caught.value.detail


def test_nothing_cannot_move(wallet: BuyerWallet) -> None:
    with pytest.raises(BadRequest) as caught:
        wallet.deposit("0")
    assert caught.value.code is ErrorCode.INVALID_REQUEST


def test_transaction_that_is_late_is_named_and_can_be_looked_up(
    wallet: BuyerWallet,
    chain: Chain,  # noqa: F811
) -> None:
    """Whoever repeats it unseen pays twice: no later command knows what this one sent."""
    wallet.faucet("2")
    wallet.deposit("2")
    wallet = BuyerWallet(key(9), chain.client, sleep=lambda _: None)
    with chain.node.held():
        with pytest.raises(ChainTrouble, match="may still be mined") as caught:
            wallet.withdraw("1")
        tx_hash = str(caught.value.values["tx_hash"])
        assert tx_hash in caught.value.detail
        assert f"watt wallet show --tx {tx_hash}" in hint_of(caught.value)
        assert wallet.became_of(from_hex(tx_hash)) == (Sent.WAITING, None)
        chain.node.mine()
    assert wallet.became_of(from_hex(tx_hash)) == (Sent.MINED, chain.client.head().number)
    assert wallet.became_of(bytes(32)) == (Sent.UNKNOWN, None)


def test_wallet_of_a_key_file(chain: Chain, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "key").write_text(key(10).secret.hex())
    (tmp_path / "key").chmod(0o600)
    assert BuyerWallet.open(tmp_path / "key", chain.url, chain.deployment).address == key(10).address


def test_chain_that_does_not_answer_is_named(chain: Chain) -> None:  # noqa: F811
    with pytest.raises(ChainTrouble):
        connect(f"http://127.0.0.1:{free_port()}", chain.deployment)

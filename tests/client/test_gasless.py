"""Deposits by signature on a real chain."""

from __future__ import annotations

import dataclasses
import json

import pytest

from marketplace.chain import tokens
from marketplace.client import gasless, relay
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.tokens import TokenDomain
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain
BUYER, RELAYER = key(9), key(1)
ONE = 1_000_000


@pytest.fixture
def wallet(chain: Chain) -> BuyerWallet:
    made = BuyerWallet(BUYER, chain.client, chain.now_ms)
    made.faucet("10")
    return made


def test_token_domain_is_the_tokens_own_word(chain: Chain) -> None:
    token = chain.deployment.token
    assert tokens.token_domain(chain.client, token) == TokenDomain(
        name="Test Dollar", version="1", chain_id=31337, token=token
    )


def test_contract_without_a_domain_is_refused(chain: Chain) -> None:
    with pytest.raises(BadRequest) as caught:
        tokens.token_domain(chain.client, chain.deployment.registry)
    assert caught.value.code is ErrorCode.UNSUPPORTED


def test_permit_deposits_in_one_transaction(chain: Chain, wallet: BuyerWallet) -> None:
    before = chain.client.nonce(BUYER.address)
    gasless.deposit_with_permit(wallet, "4")
    gasless.deposit_with_permit(wallet, "1.5")
    assert chain.client.nonce(BUYER.address) == before + 2
    assert (wallet.balance().account_atoms, wallet.balance().token_atoms) == (5_500_000, 4_500_000)
    assert chain.client.allowance_atoms(BUYER.address, chain.deployment.escrow) == 0


def test_authorization_deposits_without_gas_of_the_buyer(
    chain: Chain,
    wallet: BuyerWallet,
) -> None:
    signed = gasless.sign_deposit(wallet, "4", valid_seconds=600, nonce=b"\x05" * 32)
    chain.node.set_balance(BUYER.address, 0)
    relayer = BuyerWallet(RELAYER, chain.client, chain.now_ms)
    relay.submit(relayer, relay.from_json(json.dumps(relay.to_json(signed))))
    assert chain.client.account_atoms(BUYER.address) == 4 * ONE
    assert chain.client.account_atoms(RELAYER.address) == 0
    with pytest.raises(BadRequest) as caught:
        relay.submit(relayer, signed)
    assert caught.value.code is ErrorCode.TRANSACTION_REVERTED


def test_altered_or_late_authorization_moves_nothing(chain: Chain, wallet: BuyerWallet) -> None:
    signed = gasless.sign_deposit(wallet, "4", valid_seconds=60, nonce=b"\x06" * 32)
    relayer = BuyerWallet(RELAYER, chain.client, chain.now_ms)
    stolen = dataclasses.replace(signed.message, payer=key(8).address)
    with pytest.raises(BadRequest):
        relay.submit(relayer, dataclasses.replace(signed, message=stolen))
    chain.node.increase_time(60)
    with pytest.raises(BadRequest):
        relay.submit(relayer, signed)
    assert wallet.balance().account_atoms == 0


def test_more_than_there_is_is_not_signed_for(wallet: BuyerWallet) -> None:
    for sign in (
        lambda: gasless.deposit_with_permit(wallet, "11"),
        lambda: gasless.sign_deposit(wallet, "11", valid_seconds=60, nonce=bytes(32)),
    ):
        with pytest.raises(BadRequest) as caught:
            sign()
        assert caught.value.code is ErrorCode.SESSION_UNDERFUNDED


def test_text_that_is_no_signed_wish_is_refused(wallet: BuyerWallet) -> None:
    good = relay.to_json(gasless.sign_deposit(wallet, "1", valid_seconds=60, nonce=bytes(32)))
    changed: list[dict[str, object]] = [{"kind": "gift"}, {"signature": "x"}, {"signature": None}]
    changed += [{"message": good["message"] | {"value": str(1 << 128)}}, {"message": None}]
    changed += [{"domain": good["domain"] | {"chain_id": float("inf")}}]
    for text in ("", "[]", "{}", *(json.dumps(good | change) for change in changed)):
        with pytest.raises(BadRequest, match="no signed grant or deposit"):
            relay.from_json(text)

"""What a sender refuses, and how long it waits."""

from __future__ import annotations

from typing import Any

import pytest

from marketplace.chain import calls
from marketplace.chain.sender import GAS_LIMIT, MemoryJournal
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.messages import Voucher
from marketplace.protocol.transactions import TxState
from tests.chain.lossy import BUYER, deposit, deposited, make
from tests.hardhat import Chain

pytestmark = pytest.mark.chain


def test_what_would_revert_is_refused_and_nothing_is_persisted(funded: Chain) -> None:
    journal = MemoryJournal()
    sender = make(funded, funded.client, journal)
    with pytest.raises(BadRequest, match=r"ERC20Insufficient(Balance|Allowance)"):
        sender.send("pay", deposit(funded, 101))
    assert journal.find("pay") is None
    assert journal.next_nonce(BUYER.address) == 0
    sender.send_and_wait("pay", deposit(funded, 100), 20)


def test_what_reverts_on_chain_is_told_with_the_contracts_words(funded: Chain) -> None:
    """Two withdrawals pass the estimate; the second is mined and refused."""
    here = funded.deployment
    funded.send(BUYER, deposit(funded, 10))
    one, two = MemoryJournal(), MemoryJournal()
    withdraw = calls.withdraw(here, 10, BUYER.address)
    sender = make(funded, funded.client, two)
    with funded.node.held():
        estimate = funded.client.estimate_gas
        # Both estimates are of the state before either is mined.
        gas = estimate(BUYER.address, withdraw)
        funded.client.estimate_gas = lambda *_: gas  # type: ignore[method-assign]
        try:
            make(funded, funded.client, one).send("first", withdraw)
            sender.send("second", withdraw)
        finally:
            funded.client.estimate_gas = estimate  # type: ignore[method-assign]
        funded.node.mine()
    with pytest.raises(BadRequest, match=r"reverted; not repeatable|Escrow_AboveAccount\(got=10, limit=0\)"):
        sender.send_and_wait("second", withdraw, 20)
    again = two.find("second")
    assert again is not None
    assert again.state is TxState.REVERTED
    assert sender.step() == []


def test_a_reverted_transaction_under_automine_is_no_lost_broadcast(
    funded: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hardhat answers a send with the revert although it mined the transaction."""
    monkeypatch.setattr(funded.client, "estimate_gas", lambda *_: 100_000)
    sender = make(funded, funded.client, MemoryJournal())
    with pytest.raises(BadRequest, match=r"Escrow_AboveAccount\(got=10, limit=0\)"):
        sender.send_and_wait("pay", calls.withdraw(funded.deployment, 10, BUYER.address), 20)


def test_a_key_without_eth_is_told_before_it_signs(funded: Chain) -> None:
    journal = MemoryJournal()
    funded.node.set_balance(BUYER.address, 1000)
    with pytest.raises(BadRequest, match="1000 wei"):
        make(funded, funded.client, journal).send("pay", deposit(funded))
    assert journal.find("pay") is None


def test_a_call_above_the_gas_limit_of_a_transaction_is_refused(
    funded: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(funded.client, "estimate_gas", lambda *_: GAS_LIMIT + 1)
    with pytest.raises(BadRequest, match="send less in one"):
        make(funded, funded.client, MemoryJournal()).send("pay", deposit(funded))


def test_a_settlement_too_large_for_one_transaction_is_refused(funded: Chain) -> None:
    """The node refuses the estimate; that is the caller's fault and not worth a retry."""
    message = Voucher(session_id=b"\x01" * 32, through_seq=1, amount_atoms=1, receipts_root=b"\xff" * 32)
    item = (message, BUYER.sign(message, funded.deployment.domain))
    call = calls.settle(funded.deployment, [item] * 2500)
    with pytest.raises(BadRequest) as caught:
        make(funded, funded.client, MemoryJournal()).send("settle", call)
    assert caught.value.code is ErrorCode.TRANSACTION_REVERTED


def test_send_and_wait_works_with_interval_mining(funded: Chain) -> None:
    sender = make(funded, funded.client, MemoryJournal(), confirmations=2)
    with funded.node.interval_mining(40):
        assert sender.send_and_wait("pay", deposit(funded), 20).state is TxState.CONFIRMED


def test_send_and_wait_gives_up_and_the_intent_finds_it_later(funded: Chain) -> None:
    journal = MemoryJournal()
    sender = make(funded, funded.client, journal, sleep=lambda _: None)
    with funded.node.held():
        with pytest.raises(ChainTrouble, match="not confirmed within 1 s"):
            sender.send_and_wait("pay", deposit(funded), 1)
        funded.node.mine()
    assert sender.send_and_wait("pay", deposit(funded), 1).state is TxState.CONFIRMED
    assert deposited(funded) == 7


def test_send_and_wait_outlasts_a_chain_that_does_not_answer(
    funded: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = make(funded, funded.client, MemoryJournal(), sleep=lambda _: None)
    real, failures = funded.client.head, iter(range(3))

    def head() -> Any:
        if next(failures, None) is not None:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "down")
        return real()

    monkeypatch.setattr(funded.client, "head", head)
    assert sender.send_and_wait("pay", deposit(funded), 5).state is TxState.CONFIRMED

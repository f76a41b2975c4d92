"""The till on a real chain: the address worked out offline, and money in and back."""

from __future__ import annotations

import dataclasses

import pytest

from marketplace.chain import calls, till
from marketplace.chain.codec import encode_call, values_of
from marketplace.chain.till import Paid
from marketplace.chain.tokens import token_domain
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import checksum, keccak
from marketplace.protocol.quotes import Payer, Quote
from marketplace.protocol.signing import Signer
from marketplace.protocol.tokens import TransferWithAuthorization
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain

OWNER, NODE_KEY, SETTLER, PAYER, RELAYER = (key(number) for number in range(1, 6))
SESSION_KEY = Signer(keccak(b"session key"))
FUNDS, PRICE = 10_000, 1_000


@pytest.fixture
def quote(chain: Chain) -> Quote:
    chain.send(PAYER, calls.faucet(chain.deployment, PAYER.address, FUNDS))
    now = chain.now()
    return Quote(
        node_id=chain.add_node(OWNER, NODE_KEY, SETTLER),
        offer_hash=b"\1" * 32,
        request_hash=b"\2" * 32,
        key=SESSION_KEY.address,
        amount_atoms=PRICE,
        pay_before=now + 600,
        expires_at=now + 900,
        salt=b"\3" * 32,
    )


def signed(chain: Chain, quote: Quote, nonce: bytes = b"\4" * 32) -> Paid:
    message = TransferWithAuthorization(
        payer=PAYER.address,
        to=till.receiver_of(chain.deployment, quote),
        value_atoms=PRICE,
        valid_after=0,
        valid_before=quote.pay_before,
        nonce=nonce,
    )
    signature = PAYER.sign(message, token_domain(chain.client, chain.deployment.token))
    return Paid(
        payer=PAYER.address,
        value_atoms=PRICE,
        valid_after=0,
        valid_before=quote.pay_before,
        nonce=nonce,
        signature=signature,
    )


def push(chain: Chain, quote: Quote, paid: Paid) -> None:
    """As anybody can who has seen the payment: straight to the token."""
    receiver = till.receiver_of(chain.deployment, quote)
    times = paid.valid_after, paid.valid_before
    v, r, s = paid.signature[64], paid.signature[:32], paid.signature[32:64]
    values = paid.payer, receiver, paid.value_atoms, *times, paid.nonce, v, r, s
    data = encode_call("TestDollar", "transferWithAuthorization", *values)
    chain.send(key(9), calls.Call(to=chain.deployment.token, data=data, what="push a payment"))


def test_receiver_worked_out_offline_is_the_contracts(chain: Chain, quote: Quote) -> None:
    for one in (quote, dataclasses.replace(quote, node_id=7, salt=b"\5" * 32)):
        found = chain.client.call(chain.deployment.till, encode_call("Till", "receiverOf", values_of(one)))
        assert checksum(found[12:]) == till.receiver_of(chain.deployment, one)


def test_payment_opens_the_session_and_its_rest_returns_to_the_wallet(chain: Chain, quote: Quote) -> None:
    here = chain.deployment
    receiver = till.receiver_of(here, quote)
    chain.send(RELAYER, till.pay(here, quote, signed(chain, quote)))
    session_id = quote.terms(receiver).digest(here.domain)
    held = chain.client.session(session_id, quote.key)
    assert held is not None
    assert (held.deposited_atoms, held.node_id) == (PRICE, quote.node_id)
    assert chain.client.token_balance_atoms(PAYER.address) == FUNDS - PRICE
    chain.node.increase_time(900 + here.grace_seconds)
    chain.send(key(9), till.refund(here, quote))
    assert chain.client.token_balance_atoms(PAYER.address) == FUNDS


def test_pushed_payment_is_refused_by_pay_and_opened_by_the_keys_word(chain: Chain, quote: Quote) -> None:
    here, paid = chain.deployment, signed(chain, quote)
    push(chain, quote, paid)
    with pytest.raises(BadRequest, match="ERC3009UsedAuthorization"):
        chain.send(RELAYER, till.pay(here, quote, paid))
    word = Payer(quote_hash=quote.struct_hash, payer=PAYER.address, nonce=paid.nonce)
    chain.send(RELAYER, till.pay_pushed(here, quote, paid, SESSION_KEY.sign(word, here.domain)))
    session_id = quote.terms(till.receiver_of(here, quote)).digest(here.domain)
    assert chain.client.session(session_id, quote.key) is not None


def test_payer_gets_everything_back_alone_when_the_gateway_is_gone(chain: Chain, quote: Quote) -> None:
    here, paid = chain.deployment, signed(chain, quote)
    push(chain, quote, paid)
    chain.node.increase_time(600)
    with pytest.raises(BadRequest, match="Till_WrongKey"):
        chain.send(PAYER, till.recover(here, quote, paid))
    chain.node.increase_time(24 * 3600)
    chain.send(PAYER, till.recover(here, quote, paid))
    assert chain.client.token_balance_atoms(PAYER.address) == FUNDS


def test_reorganised_payment_pays_again_with_the_same_bytes(chain: Chain, quote: Quote) -> None:
    here, call = chain.deployment, till.pay(chain.deployment, quote, signed(chain, quote))
    with chain.node.reorganised():
        chain.send(RELAYER, call)
    session_id = quote.terms(till.receiver_of(here, quote)).digest(here.domain)
    assert chain.client.session(session_id, quote.key) is None
    chain.send(RELAYER, call)
    assert chain.client.session(session_id, quote.key) is not None
    assert chain.client.token_balance_atoms(PAYER.address) == FUNDS - PRICE

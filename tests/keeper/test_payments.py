"""Payments without a key on a real chain: taken, pushed by others, and sent back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from marketplace.chain import calls, till
from marketplace.chain.codec import encode_call
from marketplace.chain.sender import Sender
from marketplace.chain.till import Paid
from marketplace.chain.tokens import token_domain
from marketplace.funding import receivers as funding
from marketplace.funding.receivers import Called, Receivers, Wanted402
from marketplace.funding.vault import Vault
from marketplace.keeper.follow import Follower
from marketplace.keeper.pump import Pump
from marketplace.keeper.pushed import Pushed
from marketplace.protocol.hexes import from_hex, keccak, to_hex
from marketplace.protocol.messages import Open, Voucher
from marketplace.protocol.quotes import Quote
from marketplace.protocol.signing import Signer
from marketplace.protocol.tokens import TransferWithAuthorization
from marketplace.store import payments
from marketplace.store.engine import Store
from marketplace.store.tables import PaymentRow
from marketplace.store.transactions import StoreJournal
from tests.hardhat import Chain, key
from tests.keeper.market import NODE_KEY, OWNER, RELAYER, SETTLER, Told
from tests.keeper.stores import sqlite_store

pytestmark = pytest.mark.chain

PAYER = Signer(b"\x21" * 32)
FUNDS, PRICE = 50_000, 1_000


class Gateway:
    """What of a gateway has to do with payments; `turn` is one turn of each of its loops."""

    def __init__(self, chain: Chain, store: Store) -> None:
        self.chain, self.store = chain, store
        here = chain.deployment
        token = token_domain(chain.client, here.token)
        vault = Vault(b"\x07" * 32, lambda count: b"\x01" * count)
        self.receivers = Receivers(here, vault, token, window_seconds=60, work_seconds=120)
        self.follower = Follower(chain.client, store, Told())
        sender = Sender(chain.client, RELAYER, StoreJournal(store), chain.now_ms)
        self.pump = Pump(chain.client, sender, store)
        self.pushed = Pushed(chain.client, store, self.receivers, chain.now_ms)
        chain.send(key(9), calls.faucet(here, PAYER.address, FUNDS))
        wanted = Wanted402(
            node_id=chain.add_node(OWNER, NODE_KEY, SETTLER),
            offer_hash="0x" + "01" * 32,
            ceiling_atoms=PRICE,
            payload=b"{}",
        )
        self.quote = self.receivers.quote(wanted, b"\x02" * 32, chain.now() + 60)
        self.receiver = self.receivers.receiver(self.quote)

    def payment(self, nonce: bytes = b"\x03" * 32, to: str | None = None) -> Paid:
        message = TransferWithAuthorization(
            payer=PAYER.address,
            to=to or self.receiver,
            value_atoms=PRICE,
            valid_after=0,
            valid_before=self.quote.pay_before,
            nonce=nonce,
        )
        return Paid(
            payer=PAYER.address,
            value_atoms=PRICE,
            valid_after=0,
            valid_before=self.quote.pay_before,
            nonce=nonce,
            signature=PAYER.sign(message, self.receivers.token),
        )

    def take(self, paid: Paid) -> PaymentRow:
        self.receivers.check(self.quote, paid, self.chain.now())
        with self.store.transaction() as tx:
            row = funding.keep(tx, self.receivers, self.quote, paid, Called(model_id="0x", fingerprint=""), 0)
            funding.send(tx, self.receivers, row, 0)
        return self.row

    @property
    def row(self) -> PaymentRow:
        with self.store.reading() as tx:
            row = payments.find(tx, self.receiver)
        assert row is not None
        return row

    def push(self, paid: Paid, to: str | None = None) -> None:
        """As anybody can who has seen the payment."""
        v, r, s = paid.signature[64], paid.signature[:32], paid.signature[32:64]
        times = paid.valid_after, paid.valid_before
        values = paid.payer, to or self.receiver, paid.value_atoms, *times, paid.nonce, v, r, s
        self._token("transferWithAuthorization", *values)

    def cancel(self, paid: Paid) -> None:
        kind = keccak(b"CancelAuthorization(address authorizer,bytes32 nonce)")
        words = kind + from_hex(PAYER.address, 20).rjust(32, b"\0") + paid.nonce
        digest = keccak(b"\x19\x01" + self.receivers.token.separator() + keccak(words))
        self._token("cancelAuthorization", PAYER.address, paid.nonce, PAYER.sign_digest(digest))

    def spend(self, to: str, atoms: int) -> None:
        """A plain transfer of the payer's own."""
        self.chain.node.set_balance(PAYER.address, 10**18)
        data = encode_call("TestDollar", "transfer", to, atoms)
        self.chain.send(PAYER, calls.Call(to=self.chain.deployment.token, data=data, what="transfer"))

    def _token(self, function: str, *values: object) -> None:
        data = encode_call("TestDollar", function, *values)
        self.chain.send(key(9), calls.Call(to=self.chain.deployment.token, data=data, what=function))

    def turn(self, times: int = 1) -> int:
        """How many refunds were asked for."""
        asked = 0
        for _ in range(times):
            self.pump.step()
            self.pushed.step()
            self.pump.step()
            self.follower.step()
            with self.store.transaction() as tx:
                asked += funding.return_ended(tx, self.receivers, 0)
        return asked

    def standing(self) -> funding.Standing:
        with self.store.reading() as tx:
            return funding.standing(tx, self.row)

    def settle(self, atoms: int) -> None:
        terms: Open = self.quote.terms(self.receiver)
        domain = self.chain.deployment.domain
        voucher = Voucher(
            session_id=terms.digest(domain), through_seq=1, amount_atoms=atoms, receipts_root=bytes(32)
        )
        signed = self.receivers.key(self.quote).sign(voucher, domain)
        self.chain.send(SETTLER, calls.settle(self.chain.deployment, [(voucher, signed)]))

    def wait_for_refund(self) -> None:
        end = self.receivers.refund_at(self.quote)
        self.chain.node.increase_time(end - self.chain.now() + 1)

    @property
    def wallet(self) -> int:
        return self.chain.client.token_balance_atoms(PAYER.address)


@pytest.fixture
def gateway(chain: Chain, tmp_path: Path) -> Iterator[Gateway]:
    store = sqlite_store(tmp_path)
    yield Gateway(chain, store)
    store.close()


def test_payment_is_taken_and_its_rest_comes_back(gateway: Gateway) -> None:
    gateway.take(gateway.payment())
    gateway.turn()
    assert gateway.standing().is_open
    assert gateway.standing().tx_hash
    assert gateway.wallet == FUNDS - PRICE
    gateway.settle(300)
    assert gateway.turn() == 0
    gateway.wait_for_refund()
    gateway.turn(3)
    assert gateway.wallet == FUNDS - 300
    assert gateway.row.done
    assert gateway.turn() == 0


def test_refund_is_asked_for_once_at_a_time_and_again_when_it_came_too_early(gateway: Gateway) -> None:
    gateway.take(gateway.payment())
    gateway.turn()
    gateway.wait_for_refund()
    gateway.follower.step()
    with gateway.store.transaction() as tx:
        assert funding.return_ended(tx, gateway.receivers, 0) == 1
        assert funding.return_ended(tx, gateway.receivers, 0) == 0
    gateway.turn(3)
    assert gateway.wallet == FUNDS


def test_money_that_a_later_decision_returns_comes_back_too(gateway: Gateway) -> None:
    """A refund that found nothing does not end the payment while the account can still grow."""
    gateway.take(gateway.payment())
    gateway.turn()
    with gateway.store.transaction() as tx:
        # Our clock runs far ahead of the chain's: the transaction is mined and finds nothing.
        assert funding.return_ended(tx, gateway.receivers, gateway.receivers.refund_at(gateway.quote)) == 1
    gateway.turn(2)
    assert gateway.wallet == FUNDS - PRICE
    assert not gateway.row.done
    gateway.wait_for_refund()
    gateway.turn(3)
    assert gateway.wallet == FUNDS


def test_payment_that_somebody_pushed_opens_its_session_all_the_same(gateway: Gateway) -> None:
    paid = gateway.payment()
    gateway.push(paid)
    gateway.take(paid)
    gateway.pump.step()
    assert gateway.standing().is_used
    gateway.turn()
    assert gateway.standing().is_open
    gateway.wait_for_refund()
    gateway.turn(3)
    assert gateway.wallet == FUNDS


def test_pushed_payment_that_came_too_late_goes_back(gateway: Gateway) -> None:
    paid = gateway.payment()
    gateway.push(paid)
    gateway.take(paid)
    gateway.pump.step()
    gateway.chain.node.increase_time(60)
    gateway.turn()
    assert not gateway.standing().is_open
    assert gateway.wallet == FUNDS


def test_payment_that_was_pushed_unseen_goes_back_when_its_quote_expires(gateway: Gateway) -> None:
    """Our transaction came after the authorization's last second, so the token gave another reason."""
    paid = gateway.payment()
    gateway.push(paid)
    gateway.take(paid)
    gateway.chain.node.increase_time(60)
    gateway.turn()
    assert not gateway.standing().is_used
    assert gateway.wallet == FUNDS


def test_cancelled_payment_gets_no_tokens_that_others_sent(gateway: Gateway) -> None:
    """It looks used, and the payer even sent something by itself: but not by this authorization."""
    paid = gateway.payment()
    gateway.take(paid)
    gateway.chain.send(key(9), calls.faucet(gateway.chain.deployment, gateway.receiver, PRICE))
    gateway.spend(gateway.receiver, 1)
    gateway.cancel(paid)
    gateway.turn(2)
    gateway.chain.node.increase_time(60)
    gateway.turn(2)
    assert gateway.standing().is_used
    assert not gateway.standing().is_open
    assert gateway.wallet == FUNDS - 1


def test_payment_whose_nonce_was_used_for_another_gets_no_tokens_that_others_sent(gateway: Gateway) -> None:
    paid = gateway.payment()
    gateway.take(paid)
    gateway.chain.send(key(9), calls.faucet(gateway.chain.deployment, gateway.receiver, PRICE))
    gateway.push(gateway.payment(to=key(9).address), to=key(9).address)
    gateway.turn()
    assert gateway.standing().is_used
    gateway.chain.node.increase_time(60)
    gateway.turn(2)
    assert gateway.wallet == FUNDS - PRICE


def test_payment_whose_payer_has_nothing_is_told_apart(gateway: Gateway) -> None:
    gateway.spend(key(9).address, FUNDS)
    gateway.take(gateway.payment())
    gateway.turn()
    assert "ERC20InsufficientBalance" in (gateway.standing().problem or "")
    assert not gateway.standing().is_used


def test_payment_that_opened_nothing_is_given_up_in_the_end(gateway: Gateway) -> None:
    gateway.take(gateway.payment())
    gateway.follower.step()
    with gateway.store.transaction() as tx:
        funding.return_ended(tx, gateway.receivers, gateway.receivers.refund_at(gateway.quote) + 601)
    assert gateway.row.done


def test_quote_of_the_same_request_is_the_same_and_of_another_is_not(gateway: Gateway) -> None:
    quote, here = gateway.quote, gateway.receivers
    same = Wanted402(
        node_id=quote.node_id, offer_hash=to_hex(quote.offer_hash), ceiling_atoms=PRICE, payload=b"{}"
    )
    assert here.quote(same, quote.salt, quote.pay_before) == quote
    other = Wanted402(
        node_id=quote.node_id, offer_hash=to_hex(quote.offer_hash), ceiling_atoms=PRICE, payload=b"[]"
    )
    found: Quote = here.quote(other, quote.salt, quote.pay_before)
    assert found.key != quote.key
    assert here.receiver(found) == till.receiver_of(gateway.chain.deployment, found) != gateway.receiver

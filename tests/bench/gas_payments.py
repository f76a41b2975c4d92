"""What somebody without an account makes a relayer pay for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from marketplace.chain import disputes, till
from marketplace.chain.calls import Call
from marketplace.chain.codec import encode_call
from marketplace.chain.disputes import Evidence
from marketplace.chain.tokens import token_domain
from marketplace.protocol.hexes import keccak
from marketplace.protocol.quotes import Payer, Quote
from marketplace.protocol.tokens import TransferWithAuthorization
from tests.assure.figures import Figure
from tests.bench.gas_bench import AGENT, BUYER, DOLLAR, RELAYER, Bench, gas_of, offer_of

# Times are whole so many seconds: those that a slow machine takes change no byte of what is signed.
_WHOLE_SECONDS, _RUN_SECONDS = 10_000, 300


@dataclass(frozen=True, slots=True)
class Purchase:
    """A quote, the payment that was signed for it, and the key's word for who paid."""

    quote: Quote
    paid: till.Paid
    word: bytes

    @classmethod
    def drawn(cls, bench: Bench, node_id: int) -> Purchase:
        """Of one job for a dollar."""
        here, salt = bench.chain.deployment, next(bench.salts)
        until = (bench.chain.now() // _WHOLE_SECONDS + 1) * _WHOLE_SECONDS
        quote = Quote(
            node_id=node_id,
            offer_hash=keccak(b"offer"),
            request_hash=keccak(b"request"),
            key=AGENT.address,
            amount_atoms=DOLLAR,
            pay_before=until,
            expires_at=until + _RUN_SECONDS,
            salt=keccak(b"quote%d" % salt),
        )
        nonce = keccak(b"nonce%d" % salt)
        message = TransferWithAuthorization(
            payer=BUYER.address,
            to=till.receiver_of(here, quote),
            value_atoms=DOLLAR,
            valid_after=0,
            valid_before=until,
            nonce=nonce,
        )
        signature = BUYER.sign(message, token_domain(bench.chain.client, here.token))
        paid = till.Paid(
            payer=BUYER.address,
            value_atoms=DOLLAR,
            valid_after=0,
            valid_before=until,
            nonce=nonce,
            signature=signature,
        )
        word = Payer(quote_hash=quote.struct_hash, payer=BUYER.address, nonce=nonce)
        return cls(quote, paid, AGENT.sign(word, here.domain))

    def pushed(self, bench: Bench) -> Call:
        """Its transfer, straight to the token."""
        here, paid = bench.chain.deployment, self.paid
        times = paid.valid_after, paid.valid_before
        v, r, s = paid.signature[64], paid.signature[:32], paid.signature[32:64]
        receiver = till.receiver_of(here, self.quote)
        values = paid.payer, receiver, paid.value_atoms, *times, paid.nonce, v, r, s
        data = encode_call("TestDollar", "transferWithAuthorization", *values)
        return Call(to=here.token, data=data, what="push a payment")


def payments_of(bench: Bench, node_id: int) -> Iterator[Figure]:
    """Every verb of the till.

    Anchors (2026-11-23): base/commerce-payments takes 211,750 for an authorization and its capture, of which
    a payment here is the first and the promise of the rest; Tempo takes 85,920 for a refund after a timeout.
    """
    here = bench.chain.deployment
    bought, opened, stranded = (Purchase.drawn(bench, node_id) for _ in range(3))
    paying = bench.used(RELAYER, till.pay(here, bought.quote, bought.paid))
    yield gas_of("take a payment without an account", paying, "≤ 211750")
    bench.used(RELAYER, opened.pushed(bench))
    opening = bench.used(RELAYER, till.pay_pushed(here, opened.quote, opened.paid, opened.word))
    yield gas_of("open what a payment that was pushed paid", opening, "≤ 211750")
    bench.used(RELAYER, stranded.pushed(bench))
    _award(bench, bought.quote)
    taking = bench.used(RELAYER, till.take_awards(here, bought.quote))
    yield gas_of("send an award on to whoever paid", taking)
    bench.chain.node.increase_time(stranded.quote.pay_before - bench.chain.now())
    recovering = bench.used(RELAYER, till.recover(here, stranded.quote, stranded.paid, stranded.word))
    yield gas_of("give a stranded payment back", recovering)
    bench.chain.node.increase_time(_RUN_SECONDS + here.grace_seconds)
    yield gas_of("refund what it left", bench.used(RELAYER, till.refund(here, bought.quote)), "≤ 80000")


def _award(bench: Bench, quote: Quote) -> None:
    """Proves an overcharge in a quote's session, and has the award paid to its receiver."""
    here, offer = bench.chain.deployment, offer_of(quote.node_id)
    terms = quote.terms(till.receiver_of(here, quote))
    job = bench.job(terms, 1, offer, atoms=4 * DOLLAR)
    evidence = Evidence(terms=terms, order=job.order, receipt=job.receipt, signature=job.receipt_signature)
    bench.used(RELAYER, disputes.prove_overcharge(here, evidence, offer))
    bench.used(RELAYER, disputes.pay_award(here, job.order.digest(here.domain)))

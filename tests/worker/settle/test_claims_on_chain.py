"""A buyer that is gone, on a real chain: what the node gets, to the atom."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marketplace.chain import calls, disputes
from marketplace.chain.disputes import Evidence
from marketplace.chain.sender import Sender
from marketplace.protocol.due import SettlePolicy
from marketplace.protocol.errors import BadRequest, ChainTrouble
from marketplace.protocol.hexes import ZERO32, from_hex
from marketplace.protocol.messages import Open, Order, Receipt, Voucher
from tests.hardhat import Chain, key
from tests.worker.support import GATEWAY, KEY, NODE, Bench, alias
from worker.ledger import ClaimStage, HeldReceipt
from worker.node.intake import Refusal
from worker.settle.limits import SettleLimits
from worker.settle.sessions import SessionBook
from worker.settle.step import Settler

pytestmark = pytest.mark.chain
OWNER, BUYER, SETTLER, ANYBODY = key(10), key(11), key(12), key(13)
JOB_ATOMS = 1_003
POLICY = SettlePolicy(min_total_atoms=1 << 40, max_age_ms=1 << 40, expiry_margin_seconds=0)


class ChainClock:
    """The chain's time, read the way `Clock` is."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain

    def __call__(self) -> int:
        return self._chain.now_ms()

    @property
    def ms(self) -> int:
        return self._chain.now_ms()


class ChainBench(Bench):
    """A node with one session on a real chain."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        node_id = chain.add_node(OWNER, NODE, SETTLER)
        domain = chain.deployment.domain
        super().__init__(folder, chain=chain.client, clock=ChainClock(chain), domain=domain, node_id=node_id)
        self.market = chain
        chain.fund(BUYER, 1_000_000)
        self.opened = chain.open_session(BUYER, KEY, node_id, 10_000, seconds=300)
        self.session_id = self.opened.digest(domain)
        self.settler = self.make()

    def make(self, **limits: Any) -> Settler:
        """A settler of a fresh process."""
        here = self.market
        return Settler(
            ledger=self.ledger,
            chain=here.client,
            sessions=SessionBook(self.ledger, here.client, self.clock, max_age_ms=0),
            sender=Sender(here.client, SETTLER, self.ledger.transactions, self.clock),
            deployment=here.deployment,
            limits=replace(
                SettleLimits(
                    node_id=self.node_id,
                    policy=POLICY,
                    collect_min_atoms=0,
                    claim_min_atoms=1_000,
                    claim_look_ms=0,
                    confirm_seconds=2,
                ),
                **limits,
            ),
            now_ms=self.clock,
            sleep=lambda _seconds: None,
        )

    def job(self, seq: int, **work: Any) -> HeldReceipt:
        """A job done and delivered: 1,003 atoms."""
        receipt = self.receipt(seq, **work)
        self.ledger.receipts.sent(receipt.order_hash, now_ms=self.clock.ms)
        self.ledger.signing.delivered(receipt.order_hash, now_ms=self.clock.ms)
        return receipt

    def expire(self) -> None:
        """Moves the chain to the session's end."""
        self.market.node.increase_time(self.opened.expires_at - self.market.now())

    def pass_window(self) -> None:
        """Moves the chain behind the challenge window."""
        self.market.node.increase_time(self.market.deployment.challenge_seconds)

    def paid(self) -> int:
        state = self.market.client.session(self.session_id, KEY.address)
        assert state is not None
        return state.paid_atoms

    def locked(self) -> int:
        return self.market.client.provider(OWNER.address).locked_atoms

    def claim(self) -> Any:
        found = self.ledger.claims.get(self.session_id)
        assert found is not None
        return found

    def intents(self) -> list[str]:
        records = sorted(self.ledger.transactions.newest(50), key=lambda record: record.nonce)
        return [record.intent.partition(":")[0] for record in records]


@pytest.fixture
def bench(chain: Chain, tmp_path: Path) -> Iterator[ChainBench]:
    made = ChainBench(chain, tmp_path)
    yield made
    made.ledger.close()


def test_buyer_that_vanished_pays_every_atom(bench: ChainBench) -> None:
    here, client = bench.market.deployment, bench.market.client
    for seq in (1, 2, 3):
        bench.job(seq)
    bench.settler.run()
    assert bench.intents() == []
    bench.expire()
    bench.settler.run()
    claim = bench.claim()
    assert (claim.stage, claim.pending_atoms) == (ClaimStage.PENDING, 3 * JOB_ATOMS)
    assert Open.decode(claim.terms) == bench.opened
    assert bench.locked() == 3 * JOB_ATOMS
    bench.pass_window()
    # The buyer takes what nobody claims; the claim stays behind.
    bench.market.send(ANYBODY, calls.expire(here, [bench.opened]))
    before = client.token_balance_atoms(OWNER.address)
    bench.make(collect_min_atoms=1).run()
    fee = 3 * JOB_ATOMS * client.fee_bps() // 10_000
    assert client.token_balance_atoms(OWNER.address) == before + 3 * JOB_ATOMS - fee
    assert client.account_atoms(BUYER.address) == 1_000_000 - 3 * JOB_ATOMS
    assert (bench.paid(), bench.locked(), bench.claim().stage) == (3 * JOB_ATOMS, 0, ClaimStage.ENDED)
    assert bench.ledger.receipts.totals()["open"] == 0
    bench.settler.run()
    assert bench.intents() == ["claim", "finalise", "collect"]


def test_late_voucher_replaces_the_claim_and_pays_once(bench: ChainBench) -> None:
    digests = [bench.job(seq).digest for seq in (1, 2)]
    bench.expire()
    bench.settler.run()
    bench.vouchers.take(*bench.voucher(2, 2 * JOB_ATOMS, digests))
    assert bench.settler.run() == 1
    claim = bench.claim()
    assert (claim.stage, claim.paid_atoms, bench.paid()) == (ClaimStage.ENDED, 2 * JOB_ATOMS, 2 * JOB_ATOMS)
    bench.pass_window()
    bench.settler.run()
    node = bench.market.client.node(bench.node_id)
    assert node is not None
    assert (node.earnings_atoms, bench.locked()) == (2 * JOB_ATOMS, 0)
    assert bench.intents() == ["claim", "settle"]


def test_voucher_is_settled_before_the_rest_is_claimed(bench: ChainBench) -> None:
    first = bench.job(1)
    bench.vouchers.take(*bench.voucher(1, JOB_ATOMS, [first.digest]))
    bench.job(2)
    bench.expire()
    assert bench.settler.run() == 1
    assert (bench.paid(), bench.claim().pending_atoms) == (JOB_ATOMS, JOB_ATOMS)
    bench.pass_window()
    bench.settler.run()
    assert (bench.paid(), bench.claim().paid_atoms) == (2 * JOB_ATOMS, JOB_ATOMS)
    assert bench.intents() == ["settle", "claim", "finalise"]


def test_killed_between_signing_and_mining_it_sends_the_same_claim(bench: ChainBench) -> None:
    bench.job(1)
    bench.expire()
    with bench.market.node.held():
        with pytest.raises(ChainTrouble):
            bench.settler.run()
        (before,) = bench.ledger.transactions.newest(5)
        bench.market.node.mine()
    bench.make().run()
    (after,) = bench.ledger.transactions.newest(5)
    assert (after.raw, after.intent) == (before.raw, before.intent)
    assert bench.claim().pending_atoms == JOB_ATOMS


def test_disputed_job_is_left_to_the_court_and_the_rest_is_paid(bench: ChainBench) -> None:
    here, market = bench.market.deployment, bench.market
    disputed = bench.job(1)
    bench.job(2)
    bench.expire()
    bench.settler.run()
    (claimed,) = [e for e in market.client.events(0, market.client.head().number) if e.name == "Claimed"]
    order = bench.ledger.orders.get(disputed.order_hash)
    assert order is not None
    evidence = Evidence(
        terms=bench.opened,
        order=Order.decode(order.message),
        receipt=Receipt.decode(disputed.message),
        signature=disputed.signature,
        claimed=tuple(from_hex(text, 32) for text in claimed.args["receiptHashes"]),
    )
    market.send(BUYER, calls.faucet(here, BUYER.address, 10_000_000))
    market.send(BUYER, calls.approve(here, here.court, 10_000_000))
    market.send(BUYER, disputes.demand(here, evidence))
    bench.settler.run()
    assert (bench.claim().pending_atoms, bench.claim().held_atoms) == (JOB_ATOMS, JOB_ATOMS)
    bench.pass_window()
    bench.settler.run()
    assert (bench.claim().stage, bench.paid()) == (ClaimStage.HELD, JOB_ATOMS)
    # Nobody answers: the job goes back to its buyer.
    market.node.increase_time(3_600)
    market.send(ANYBODY, disputes.advance(here, disputed.digest))
    bench.settler.run()
    assert (bench.claim().stage, bench.claim().paid_atoms, bench.locked()) == (ClaimStage.ENDED, JOB_ATOMS, 0)
    assert bench.intents() == ["claim", "finalise"]


def test_escrow_answers_for_ids_that_only_begin_alike_and_the_node_does_not(bench: ChainBench) -> None:
    client, real, made_up = bench.market.client, bench.session_id, alias(bench.session_id)
    assert client.session(made_up, KEY.address) == client.session(real, KEY.address)
    assert (client.opened(real), client.opened(made_up)) == (True, False)
    for _ in range(2):
        with pytest.raises(Refusal, match="whole id"):
            bench.intake.take(bench.frame(1, session_id=made_up), GATEWAY)
        voucher = Voucher(session_id=made_up, through_seq=9, amount_atoms=1, receipts_root=ZERO32)
        with pytest.raises(BadRequest, match="whole id"):
            bench.vouchers.take(voucher.encode(), KEY.sign(voucher, bench.domain))
        # Once more with the real one known.
        assert bench.book.get(real, KEY.address) is not None
    bench.settler.run(everything=True)
    assert (bench.paid(), bench.intents()) == (0, [])


def test_dearest_receipts_are_paid_whatever_lies_between(bench: ChainBench) -> None:
    for seq in range(1, 6):
        bench.job(seq, units_out=8 if seq in (2, 4) else 1)
    bench.expire()
    settler = bench.make(claim_max_receipts=2)
    settler.run()
    bench.pass_window()
    settler.run()
    assert (bench.paid(), bench.claim().through_seq, bench.locked()) == (2 * 1_008, 4, 0)


def test_free_stake_bounds_what_is_claimed(bench: ChainBench) -> None:
    here = bench.market.deployment
    for seq in (1, 2, 3):
        bench.job(seq)
    staked = bench.market.client.provider(OWNER.address).staked_atoms
    bench.market.send(OWNER, calls.request_unstake(here, staked - 2 * JOB_ATOMS - 1))
    bench.expire()
    bench.settler.run()
    assert (bench.claim().pending_atoms, bench.locked()) == (2 * JOB_ATOMS, 2 * JOB_ATOMS)

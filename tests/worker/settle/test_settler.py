"""Settling on a real chain: once, by the right key, through crashes and skips."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marketplace.chain import calls
from marketplace.chain.sender import Sender
from marketplace.protocol.due import SettlePolicy
from marketplace.protocol.errors import BadRequest, ChainTrouble
from marketplace.protocol.hexes import ZERO32
from marketplace.protocol.messages import Voucher
from marketplace.protocol.signing import Signer
from marketplace.protocol.transactions import TxState
from tests.hardhat import Chain, key
from worker.ledger import HeldVoucher, Ledger, VoucherVerdict
from worker.settle.limits import SettleLimits
from worker.settle.sessions import SessionBook
from worker.settle.step import Settler

pytestmark = pytest.mark.chain
OWNER, BUYER, SETTLER, SESSION_KEY = key(6), key(7), key(8), key(9)
NODE = Signer(b"\x21" * 32)
POLICY = SettlePolicy(min_total_atoms=1_000, max_age_ms=1 << 40, expiry_margin_seconds=0, max_items=2)


class Desk:
    """A node on a real chain whose vouchers are put straight into its ledger."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain = chain
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.db'}")
        self.node_id = chain.add_node(OWNER, NODE, SETTLER)
        chain.fund(BUYER, 1_000_000)
        self.settler = self.make()

    def make(self, *, signer: Signer = SETTLER, client: Any = None, **limits: Any) -> Settler:
        client = client or self.chain.client
        return Settler(
            ledger=self.ledger,
            chain=client,
            sessions=SessionBook(self.ledger, client, self.chain.now_ms, max_age_ms=0),
            sender=Sender(client, signer, self.ledger.transactions, self.chain.now_ms),
            deployment=self.chain.deployment,
            limits=replace(
                SettleLimits(
                    node_id=self.node_id,
                    policy=POLICY,
                    collect_min_atoms=0,
                    claim_min_atoms=0,
                    confirm_seconds=2,
                    retry_ms=1_000,
                ),
                **limits,
            ),
            now_ms=self.chain.now_ms,
            sleep=lambda _seconds: None,
        )

    def session(self, amount_atoms: int = 10_000, **options: Any) -> bytes:
        opened = self.chain.open_session(BUYER, SESSION_KEY, self.node_id, amount_atoms, **options)
        return opened.digest(self.chain.deployment.domain)

    def hold(
        self, session_id: bytes, amount_atoms: int, *, seq: int = 1, signer: Signer = SESSION_KEY
    ) -> None:
        """Holds a voucher as if it had been accepted."""
        domain = self.chain.deployment.domain
        voucher = Voucher(
            session_id=session_id, through_seq=seq, amount_atoms=amount_atoms, receipts_root=ZERO32
        )
        book = SessionBook(self.ledger, self.chain.client, self.chain.now_ms, max_age_ms=0)
        book.refresh(session_id, SESSION_KEY.address)
        held = HeldVoucher(
            session_id=session_id,
            key=SESSION_KEY.address,
            message=voucher.encode(),
            signature=signer.sign(voucher, domain),
            through_seq=seq,
            amount_atoms=amount_atoms,
            leaves=0,
            peaks=b"",
            owed_atoms=0,
            held_since_ms=self.chain.now_ms(),
            trace_ids=f"{seq:032x}",
        )
        self.ledger.vouchers.take(
            held, lambda facts: VoucherVerdict(tree=held.tree, owed_atoms=amount_atoms, replaces=True)
        )

    def paid(self, session_id: bytes) -> int:
        state = self.chain.client.session(session_id, SESSION_KEY.address)
        assert state is not None
        return state.paid_atoms

    def intents(self) -> list[str]:
        return [record.intent for record in self.ledger.transactions.newest(50)]


@pytest.fixture
def desk(chain: Chain, tmp_path: Path) -> Iterator[Desk]:
    made = Desk(chain, tmp_path)
    yield made
    made.ledger.close()


def test_nothing_is_sent_while_nothing_is_due(desk: Desk) -> None:
    desk.hold(desk.session(), 999)
    assert desk.settler.run() == 0
    assert desk.intents() == []


def test_due_vouchers_are_paid_in_one_transaction(desk: Desk) -> None:
    first, second = desk.session(), desk.session()
    desk.hold(first, 600)
    desk.hold(second, 400, seq=2)
    assert desk.settler.run() == 2
    assert (desk.paid(first), desk.paid(second)) == (600, 400)
    assert desk.ledger.vouchers.unsettled() == []
    (record,) = desk.ledger.transactions.newest(5)
    assert record.state is TxState.CONFIRMED
    assert set(record.trace_ids.split(",")) == {f"{1:032x}", f"{2:032x}"}


def test_settling_again_sends_nothing(desk: Desk) -> None:
    desk.hold(desk.session(), 1_000)
    desk.settler.run()
    assert desk.settler.run(everything=True) == 0
    assert len(desk.intents()) == 1


def test_newer_voucher_pays_only_what_it_adds(desk: Desk) -> None:
    session_id = desk.session()
    desk.hold(session_id, 1_000)
    desk.settler.run()
    desk.hold(session_id, 1_999, seq=2)
    assert desk.settler.run() == 0
    assert desk.settler.run(everything=True) == 1
    assert desk.paid(session_id) == 1_999


def test_more_vouchers_than_fit_take_several_transactions(desk: Desk) -> None:
    sessions = [desk.session() for _ in range(5)]
    for session_id in sessions:
        desk.hold(session_id, 1_000)
    assert desk.settler.run(everything=True) == 5
    assert len(desk.intents()) == 3
    assert [desk.paid(session_id) for session_id in sessions] == [1_000] * 5


def test_crash_after_signing_sends_the_same_bytes(desk: Desk) -> None:
    session_id = desk.session()
    desk.hold(session_id, 1_000)
    with desk.chain.node.held():
        with pytest.raises(ChainTrouble):
            desk.settler.run()
        (before,) = desk.ledger.transactions.newest(5)
        desk.chain.node.mine()
    assert desk.make().run() == 1
    (after,) = desk.ledger.transactions.newest(5)
    assert (after.raw, after.intent) == (before.raw, before.intent)
    assert desk.paid(session_id) == 1_000


def test_crash_after_confirming_is_noticed_on_the_chain(desk: Desk) -> None:
    session_id = desk.session()
    desk.hold(session_id, 1_000)
    sender = Sender(desk.chain.client, SETTLER, desk.ledger.transactions, desk.chain.now_ms)
    held = desk.ledger.vouchers.get(session_id)
    assert held is not None
    call = calls.settle(desk.chain.deployment, [(Voucher.decode(held.message), held.signature)])
    sender.send_and_wait(desk.settler._intent(call), call)
    assert desk.settler.run() == 0
    assert desk.ledger.vouchers.unsettled() == []
    assert len(desk.intents()) == 1


def test_item_signed_by_the_wrong_key_is_skipped_and_the_others_are_paid(desk: Desk) -> None:
    good, bad = desk.session(), desk.session()
    desk.hold(good, 1_000)
    desk.hold(bad, 1_000, signer=BUYER)
    assert desk.settler.run() == 1
    assert desk.paid(good) == 1_000
    (left,) = desk.ledger.vouchers.unsettled()
    assert (left.session_id, left.skipped) == (bad, "unknown_session")
    # It rests before it is tried again, and a retry is a transaction of its own.
    assert desk.settler.run(everything=True) == 0
    assert len(desk.intents()) == 1
    desk.chain.node.increase_time(2)
    assert desk.settler.run(everything=True) == 0
    assert len(desk.intents()) == 2


def test_settler_that_the_node_does_not_name_is_told(desk: Desk) -> None:
    session_id = desk.session()
    desk.hold(session_id, 1_000)
    assert desk.make(signer=BUYER).run() == 0
    held = desk.ledger.vouchers.get(session_id)
    assert held is not None
    assert (held.skipped, held.settled) == ("not_settler", False)


def test_voucher_of_a_session_past_its_grace_is_given_up(desk: Desk) -> None:
    session_id = desk.session(seconds=60)
    desk.hold(session_id, 1_000)
    desk.chain.node.increase_time(60 + desk.chain.deployment.grace_seconds + 600)
    assert desk.settler.run(everything=True) == 0
    held = desk.ledger.vouchers.get(session_id)
    assert held is not None
    assert (held.settled, held.skipped) == (True, "expired")
    assert desk.intents() == []


def test_settler_without_gas_says_so_and_keeps_the_voucher(desk: Desk) -> None:
    poor = Signer(b"\x31" * 32)
    desk.hold(desk.session(), 1_000)
    with pytest.raises(BadRequest, match="ETH"):
        desk.make(signer=poor).run()
    assert len(desk.ledger.vouchers.unsettled()) == 1
    assert desk.intents() == []


def test_chain_that_is_away_keeps_the_voucher(desk: Desk) -> None:
    desk.hold(desk.session(), 1_000)

    class Away:
        chain_id = 31_337

        def session(self, session_id: bytes, key: str) -> None:
            raise ChainTrouble(desk_code())

    def desk_code() -> Any:
        from marketplace.protocol.errors import ErrorCode

        return ErrorCode.CHAIN_UNAVAILABLE

    with pytest.raises(ChainTrouble):
        desk.make(client=Away()).run()
    assert len(desk.ledger.vouchers.unsettled()) == 1


def test_earnings_are_collected_once_they_are_worth_it(desk: Desk) -> None:
    session_id = desk.session()
    desk.hold(session_id, 1_000)
    before = desk.chain.client.token_balance_atoms(OWNER.address)
    collecting = desk.make(collect_min_atoms=1_500)
    collecting.run()
    assert desk.chain.client.token_balance_atoms(OWNER.address) == before
    desk.hold(session_id, 2_000, seq=2)
    collecting.run()
    fee = 2_000 * desk.chain.client.fee_bps() // 10_000
    assert desk.chain.client.token_balance_atoms(OWNER.address) == before + 2_000 - fee
    collecting.run()
    assert sum(intent.startswith("collect:") for intent in desk.intents()) == 1

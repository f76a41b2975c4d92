"""Whatever fails between signing and confirming, an intent is paid once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from hexbytes import HexBytes

from marketplace.chain.sender import DISPLACED_DEPTH, MemoryJournal
from marketplace.protocol.errors import BadRequest, Broken, ChainTrouble, ErrorCode, LostRace
from marketplace.protocol.transactions import TxRecord, TxState
from tests.chain.lossy import BUYER, deposit, deposited, lossy, make
from tests.hardhat import Chain

pytestmark = pytest.mark.chain


def test_same_intent_twice_is_one_transaction(funded: Chain) -> None:
    journal = MemoryJournal()
    sender = make(funded, funded.client, journal)
    one = sender.send("pay", deposit(funded), "trace")
    two = sender.send("pay", deposit(funded))
    assert one == two
    assert one.trace_ids == "trace"
    assert [r.state for r in sender.step()] == [TxState.CONFIRMED]
    assert sender.step() == []
    assert sender.send("pay", deposit(funded)).state is TxState.CONFIRMED
    assert deposited(funded) == 7


def test_signed_bytes_are_an_ordinary_eip1559_transaction(funded: Chain) -> None:
    record = make(funded, funded.client, MemoryJournal()).send("pay", deposit(funded))
    fields = TypedTransaction.from_bytes(HexBytes(record.raw)).as_dict()
    assert Account.recover_transaction(record.raw) == BUYER.address
    assert fields["chainId"] == funded.deployment.chain_id
    assert fields["nonce"] == record.nonce
    assert fields["maxFeePerGas"] > fields["maxPriorityFeePerGas"] > 0


@pytest.mark.parametrize("lose", ["before", "after"])
def test_step_sends_the_same_bytes_after_a_lost_broadcast(funded: Chain, lose: str) -> None:
    journal, client = MemoryJournal(), lossy(funded, lose)
    sender = make(funded, client, journal)
    record = sender.send("pay", deposit(funded))
    assert record.state is TxState.SIGNED
    client.lose = ""
    sender.step()
    sender.step()
    confirmed = journal.find("pay")
    assert confirmed is not None
    assert confirmed.state is TxState.CONFIRMED
    assert set(client.sent) == {record.raw}
    assert len(client.sent) == (2 if lose == "before" else 1)
    assert deposited(funded) == 7


def test_a_crash_between_persist_and_broadcast_is_mended_by_another_process(funded: Chain) -> None:
    journal = MemoryJournal()
    crashing = lossy(funded, "before")
    signed = make(funded, crashing, journal).send("pay", deposit(funded))
    restarted = make(funded, funded.client, journal)
    assert restarted.send_and_wait("pay", deposit(funded), 20).tx_hash == signed.tx_hash
    assert deposited(funded) == 7


def test_nonces_follow_the_journal_when_the_chain_knows_less(funded: Chain) -> None:
    journal, client = MemoryJournal(), lossy(funded, "before")
    sender = make(funded, client, journal)
    records = [sender.send(f"pay {n}", deposit(funded)) for n in range(3)]
    assert [r.nonce - records[0].nonce for r in records] == [0, 1, 2]
    client.lose = ""
    sender.step()
    assert {r.state for r in sender.step()} == {TxState.CONFIRMED}
    assert deposited(funded) == 21


def test_nonces_follow_the_chain_when_the_journal_knows_less(funded: Chain) -> None:
    make(funded, funded.client, MemoryJournal()).send("one", deposit(funded))
    record = make(funded, funded.client, MemoryJournal()).send_and_wait("two", deposit(funded), 20)
    assert record.nonce == funded.client.nonce(BUYER.address) - 1
    assert deposited(funded) == 14


def test_a_transaction_waiting_in_the_pool_is_not_sent_again(funded: Chain) -> None:
    journal, client = MemoryJournal(), lossy(funded, "")
    sender = make(funded, client, journal)
    with funded.node.held():
        sender.send("pay", deposit(funded))
        second = sender.send("pay more", deposit(funded))
        assert sender.step() == []
        assert len(client.sent) == 2
        assert second.nonce == journal.next_nonce(BUYER.address) - 1
        funded.node.mine()
    assert [r.state for r in sender.step()] == [TxState.CONFIRMED] * 2


def test_confirmed_only_after_enough_blocks(funded: Chain) -> None:
    sender = make(funded, funded.client, MemoryJournal(), confirmations=3)
    sender.send("pay", deposit(funded))
    (mined,) = sender.step()
    assert mined.state is TxState.MINED
    assert mined.block_hash == funded.client.head().hash
    assert sender.step() == []
    funded.node.mine()
    assert sender.step() == []
    funded.node.mine()
    assert [r.state for r in sender.step()] == [TxState.CONFIRMED]


def test_a_reorganisation_sends_it_back_and_pays_once(funded: Chain) -> None:
    journal, client = MemoryJournal(), lossy(funded, "")
    sender = make(funded, client, journal, confirmations=3)
    with funded.node.reorganised():
        record = sender.send("pay", deposit(funded))
        (mined,) = sender.step()
        assert mined.state is TxState.MINED
        assert deposited(funded) == 7
    assert deposited(funded) == 0
    (back,) = sender.step()
    assert (back.state, back.block_number, back.block_hash) == (TxState.SIGNED, None, None)
    funded.node.mine(3)
    (again,) = sender.step()
    assert again.state is TxState.CONFIRMED
    assert again.raw == record.raw
    assert again.block_hash != mined.block_hash
    assert deposited(funded) == 7
    events = funded.client.events(1, funded.client.head().number)
    assert [e.name for e in events if e.tx_hash == record.tx_hash] == ["Deposited"]


def test_a_transaction_mined_again_elsewhere_is_noticed(funded: Chain) -> None:
    sender = make(funded, funded.client, MemoryJournal(), confirmations=5)
    with funded.node.reorganised():
        record = sender.send("pay", deposit(funded))
        (first,) = sender.step()
    funded.client.broadcast(record.raw)
    (second,) = sender.step()
    assert first.state is second.state is TxState.MINED
    assert first.block_hash != second.block_hash


def test_a_receipt_of_an_abandoned_block_confirms_nothing(
    funded: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = make(funded, funded.client, MemoryJournal())
    sender.send("pay", deposit(funded))
    real = funded.client.tx_receipt

    def stale(tx_hash: bytes) -> Any:
        seen = real(tx_hash)
        assert seen is not None
        return type(seen)(
            block_number=seen.block_number, block_hash=b"\x0f" * 32, ok=True, gas_used=seen.gas_used
        )

    monkeypatch.setattr(funded.client, "tx_receipt", stale)
    assert sender.step() == []
    monkeypatch.undo()
    assert [r.state for r in sender.step()] == [TxState.CONFIRMED]


def test_a_nonce_taken_by_another_transaction_ends_the_record_once_it_is_deep(funded: Chain) -> None:
    journal, client = MemoryJournal(), lossy(funded, "before")
    sender = make(funded, client, journal)
    record = sender.send("pay", deposit(funded))
    funded.send(BUYER, deposit(funded, 1))
    client.lose = ""
    assert sender.step() == []
    funded.node.mine(DISPLACED_DEPTH)
    assert sender.step() == []
    (ended,) = sender.step()
    assert (ended.state, ended.block_number) == (TxState.REVERTED, None)
    with pytest.raises(BadRequest, match="another transaction took its nonce"):
        sender.send_and_wait("pay", deposit(funded), 5)
    assert ended.tx_hash == record.tx_hash
    assert deposited(funded) == 1


def test_one_missing_receipt_does_not_end_a_transaction_mined_long_ago(
    funded: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node behind a balancer answers for a block it does not have; the next one knows better."""
    sender = make(funded, funded.client, MemoryJournal())
    sender.send("pay", deposit(funded))
    funded.node.mine(DISPLACED_DEPTH + 1)
    with monkeypatch.context() as lagging:
        lagging.setattr(funded.client, "tx_receipt", lambda _: None)
        assert sender.step() == []
    with monkeypatch.context() as lagging:
        lagging.setattr(funded.client, "block", lambda _: None)
        assert [sender.step() for _ in range(3)] == [[], [], []]
    assert [r.state for r in sender.step()] == [TxState.CONFIRMED]


def test_step_tells_what_changed_before_the_chain_stopped_answering(
    funded: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = make(funded, funded.client, MemoryJournal())
    for n in range(2):
        sender.send(f"pay {n}", deposit(funded))
    real, answers = funded.client.tx_receipt, iter(range(1))

    def once(tx_hash: bytes) -> Any:
        if next(answers, None) is None:
            raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "down")
        return real(tx_hash)

    with monkeypatch.context() as failing:
        failing.setattr(funded.client, "tx_receipt", once)
        assert [r.intent for r in sender.step()] == ["pay 0"]
        with pytest.raises(ChainTrouble):
            sender.step()
    assert [r.intent for r in sender.step()] == ["pay 1"]


def test_the_record_of_a_lost_race_for_an_intent_is_the_answer(funded: Chain) -> None:
    journal = MemoryJournal()
    winner = make(funded, funded.client, journal)

    class Late(MemoryJournal):
        """Finds nothing at first: another process persists in between."""

        looked = False

        def find(self, intent: str) -> TxRecord | None:
            if not self.looked:
                self.looked = True
                winner.send(intent, deposit(funded))
                return None
            return journal.find(intent)

        def add(self, record: TxRecord) -> None:
            journal.add(record)

    late = make(funded, funded.client, Late())
    assert late.send("pay", deposit(funded)) == journal.find("pay")
    winner.step()
    assert deposited(funded) == 7


def test_a_lost_race_for_a_nonce_takes_the_next(funded: Chain) -> None:
    class Contended(MemoryJournal):
        lost = 0

        def add(self, record: TxRecord) -> None:
            if self.lost < 2:
                self.lost += 1
                raise LostRace(ErrorCode.INTERNAL, "nonce is taken")
            super().add(record)

    assert make(funded, funded.client, Contended()).send_and_wait("pay", deposit(funded), 20)
    assert deposited(funded) == 7


def test_a_journal_that_never_yields_a_nonce_is_our_defect(funded: Chain) -> None:
    class Full(MemoryJournal):
        def add(self, record: TxRecord) -> None:
            raise LostRace(ErrorCode.INTERNAL, "taken")

    with pytest.raises(Broken, match="no free nonce"):
        make(funded, funded.client, Full()).send("pay", deposit(funded))


def test_threads_share_a_sender_without_sharing_a_nonce(funded: Chain) -> None:
    journal = MemoryJournal()
    sender = make(funded, funded.client, journal)
    threads = [
        threading.Thread(target=sender.send, args=(f"pay {n % 5}", deposit(funded, 1))) for n in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(3):
        sender.step()
    assert journal.pending(BUYER.address) == []
    assert deposited(funded) == 5

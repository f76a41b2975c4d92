from __future__ import annotations

from pathlib import Path

import pytest

from marketplace.chain import calls
from marketplace.chain.client import ChainClient
from marketplace.chain.sender import Sender
from marketplace.keeper.pump import Pump
from marketplace.protocol.errors import ChainTrouble, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open
from marketplace.protocol.transactions import TxRecord, TxState
from marketplace.store import outbox
from marketplace.store.engine import Store
from marketplace.store.outbox import OutboxEntry, Wanted
from marketplace.store.transactions import StoreJournal
from marketplace.telemetry.metrics import Metrics
from tests.hardhat import Chain
from tests.keeper.market import BUYER, RELAYER, SESSION_KEY, Cut, Market, PowerCutError
from tests.keeper.stores import sqlite_store

pytestmark = pytest.mark.chain


@pytest.fixture
def market(chain: Chain) -> Market:
    return Market(chain)


@pytest.fixture
def ours(tmp_path: Path) -> Store:
    return sqlite_store(tmp_path)


class CutClient(ChainClient):
    """Loses power, or only the answer, around the broadcast."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain.url, chain.deployment)
        self.before: BaseException | None = None
        self.after: BaseException | None = None

    def broadcast(self, raw: bytes) -> None:
        if self.before is not None:
            raise self.before
        super().broadcast(raw)
        if self.after is not None:
            raise self.after


def pump(
    market: Market, store: Store, *, client: ChainClient | None = None, confirmations: int = 1, **more: object
) -> Pump:
    """A pump as a fresh process would make it."""
    chain = client or market.chain.client
    journal = StoreJournal(store)
    sender = Sender(chain, RELAYER, journal, market.chain.now_ms, confirmations=confirmations)
    return Pump(chain, sender, store, **more)  # type: ignore[arg-type]


def want_open(market: Market, store: Store, atoms: int = 5000) -> tuple[Open, str]:
    """A session the relayer shall open for the buyer."""
    terms = market.chain.terms(BUYER, SESSION_KEY, market.node_id, atoms)
    signed = BUYER.sign(terms, market.chain.deployment.domain)
    call = calls.open_sessions(market.chain.deployment, [(terms, signed)])
    intent = f"open:{market.id_of(terms)}"
    assert call.to is not None
    with store.transaction() as db:
        wanted = Wanted(intent=intent, contract=call.to, data=call.data, what=call.what, trace_id="t1")
        outbox.ask(db, wanted, now_ms=1)
    return terms, intent


def entry(store: Store, intent: str) -> OutboxEntry:
    with store.reading() as db:
        found = outbox.find(db, intent)
    assert found is not None
    return found


def sent_by_relayer(market: Market) -> int:
    return market.chain.client.nonce(RELAYER.address)


def is_open(market: Market, terms: Open) -> bool:
    digest = terms.digest(market.chain.deployment.domain)
    return market.chain.client.session(digest, SESSION_KEY.address) is not None


def record(store: Store, intent: str) -> TxRecord:
    found = StoreJournal(store).find(intent)
    assert found is not None
    return found


def test_what_the_outbox_wants_is_sent_and_confirmed(market: Market, ours: Store) -> None:
    metrics = Metrics()
    terms, intent = want_open(market, ours)
    moved = pump(market, ours, metrics=metrics).step()
    assert [(e.wanted.intent, e.state.value) for e in moved] == [(intent, "confirmed")]
    assert is_open(market, terms)
    assert record(ours, intent).trace_ids == "t1"
    assert b"watt_outbox_pending 0.0" in metrics.render()
    assert b'watt_tx_sent_total{state="confirmed"} 1.0' in metrics.render()


def test_several_are_sent_in_the_order_they_were_wanted(market: Market, ours: Store) -> None:
    wanted = [want_open(market, ours) for _ in range(3)]
    pump(market, ours).step()
    assert [record(ours, intent).nonce for _, intent in wanted] == [0, 1, 2]
    assert all(is_open(market, terms) for terms, _ in wanted)


def test_what_would_revert_fails_with_the_contracts_word_and_signs_nothing(
    market: Market, ours: Store
) -> None:
    _, intent = want_open(market, ours, 10**15)
    _, fine = want_open(market, ours)
    pump(market, ours).step()
    assert entry(ours, intent).state.value == "failed"
    assert "Escrow_AboveAccount" in (entry(ours, intent).problem or "")
    assert StoreJournal(ours).find(intent) is None
    assert entry(ours, fine).state.value == "confirmed"


def test_what_reverts_once_mined_fails_with_the_contracts_word(market: Market, ours: Store) -> None:
    _, intent = want_open(market, ours)
    with market.chain.node.held():
        pump(market, ours).step()
        assert entry(ours, intent).state.value == "sent"
        market.chain.node.rpc.once("hardhat_dropTransaction", to_hex(record(ours, intent).tx_hash))
    atoms = market.chain.client.account_atoms(BUYER.address)
    market.chain.send(BUYER, calls.withdraw(market.chain.deployment, atoms, BUYER.address))
    pump(market, ours).step()
    moved = pump(market, ours).step()
    assert [e.state.value for e in moved] == ["failed"]
    assert record(ours, intent).state is TxState.REVERTED
    assert "Escrow_AboveAccount" in (entry(ours, intent).problem or "")


def test_power_cut_after_signing_sends_the_signed_bytes_once(market: Market, ours: Store) -> None:
    terms, intent = want_open(market, ours)
    client = CutClient(market.chain)
    client.before = PowerCutError()
    with pytest.raises(PowerCutError):
        pump(market, ours, client=client).step()
    signed = record(ours, intent)
    assert (signed.state, entry(ours, intent).state.value, sent_by_relayer(market)) == (
        TxState.SIGNED,
        "waiting",
        0,
    )
    restarted = pump(market, ours)
    restarted.step()
    restarted.step()
    assert is_open(market, terms)
    assert (record(ours, intent).raw, sent_by_relayer(market)) == (signed.raw, 1)
    assert entry(ours, intent).state.value == "confirmed"


def test_power_cut_after_broadcast_sends_nothing_more(market: Market, ours: Store) -> None:
    terms, intent = want_open(market, ours)
    client = CutClient(market.chain)
    client.after = PowerCutError()
    with pytest.raises(PowerCutError):
        pump(market, ours, client=client).step()
    assert is_open(market, terms)
    assert entry(ours, intent).state.value == "waiting"
    pump(market, ours).step()
    assert sent_by_relayer(market) == 1
    assert entry(ours, intent).state.value == "confirmed"


def test_an_answer_lost_after_broadcast_sends_nothing_more(market: Market, ours: Store) -> None:
    _, intent = want_open(market, ours)
    client = CutClient(market.chain)
    client.after = ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE)
    pump(market, ours, client=client).step()
    client.after = None
    pump(market, ours, client=client).step()
    assert sent_by_relayer(market) == 1
    assert entry(ours, intent).state.value == "confirmed"


def test_power_cut_between_any_two_commits_sends_exactly_one_transaction(market: Market, ours: Store) -> None:
    points = ["pump.sent", "pump.looked", "pump.followed"]
    for at, point in enumerate(points):
        before = sent_by_relayer(market)
        terms, intent = want_open(market, ours)
        with pytest.raises(PowerCutError, match=point):
            pump(market, ours, probe=Cut(at)).step()
        pump(market, ours).step()
        assert is_open(market, terms)
        assert sent_by_relayer(market) == before + 1
        assert entry(ours, intent).state.value == "confirmed"


def test_a_chain_that_does_not_answer_leaves_everything_waiting(market: Market, ours: Store) -> None:
    _, intent = want_open(market, ours)
    dead = ChainClient("http://127.0.0.1:9", market.chain.deployment, timeout_seconds=0.2)
    with pytest.raises(ChainTrouble):
        pump(market, ours, client=dead).step()
    assert entry(ours, intent).state.value == "waiting"
    pump(market, ours).step()
    assert entry(ours, intent).state.value == "confirmed"


def test_a_transaction_a_reorganisation_drops_is_sent_again(market: Market, ours: Store) -> None:
    terms, intent = want_open(market, ours)
    ours_pump = pump(market, ours, confirmations=3)
    with market.chain.node.reorganised():
        ours_pump.step()
        assert (record(ours, intent).state, entry(ours, intent).state.value) == (TxState.MINED, "sent")
    assert not is_open(market, terms)
    raw = record(ours, intent).raw
    ours_pump.step()
    assert is_open(market, terms)
    market.chain.node.mine(3)
    ours_pump.step()
    assert (record(ours, intent).raw, entry(ours, intent).state.value) == (raw, "confirmed")


def test_asking_again_after_confirmation_sends_nothing(market: Market, ours: Store) -> None:
    _, intent = want_open(market, ours)
    pump(market, ours).step()
    with ours.transaction() as db:
        outbox.ask(db, entry(ours, intent).wanted, now_ms=2)
    assert pump(market, ours).step() == []
    assert sent_by_relayer(market) == 1

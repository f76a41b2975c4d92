from __future__ import annotations

import dataclasses

import pytest

from marketplace.client.aio import AsyncWattline
from marketplace.client.journal import Journal, SessionUse
from marketplace.client.sessions import SessionPolicy
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.messages import Open
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.fakes import DOMAIN, START_MS

AGENT = Signer(b"\x22" * 32)


def opened_for(market: FakeMarket, buyer: Signer, key: str, amount: int = 100_000) -> bytes:
    terms = Open(
        buyer=buyer.address,
        key=key,
        node_id=1,
        amount_atoms=amount,
        open_before=START_MS // 1000 + 600,
        expires_at=START_MS // 1000 + 7200,
        salt=b"\x44" * 32,
    )
    return market.chain.open(terms)


async def test_session_counts_only_when_the_chain_has_it(market: FakeMarket, buyer: Signer) -> None:
    market.opens_on_chain = False
    watt = AsyncWattline(market.desk(buyer), buyer=buyer, policy=SessionPolicy(wait_seconds=5))
    with pytest.raises(ChainTrouble, match="not on the chain"):
        await watt.chat("hi", model="tiny-chat")
    assert market.orders == []


async def test_session_that_opens_after_a_crash_is_found_again(market: FakeMarket, buyer: Signer) -> None:
    market.opens_on_chain = False
    journal = Journal(":memory:")
    watt = AsyncWattline(market.desk(buyer, journal), buyer=buyer, policy=SessionPolicy(wait_seconds=1))
    with pytest.raises(ChainTrouble):
        await watt.chat("hi", model="tiny-chat", node=1)
    (session,) = journal.sessions(buyer.address)
    assert session.use is SessionUse.OPENING
    assert session.terms is not None
    market.chain.open(session.terms)
    again = AsyncWattline(market.desk(buyer, journal), buyer=buyer)
    assert (await again.chat("hi", model="tiny-chat", node=1)).bundle.order.session_id == session.session_id


async def test_agent_key_uses_a_session_opened_for_it(market: FakeMarket, buyer: Signer) -> None:
    session_id = opened_for(market, buyer, AGENT.address)
    watt = AsyncWattline(market.desk(AGENT))
    result = await watt.chat("hi", model="tiny-chat")
    assert result.bundle.order.session_id == session_id
    assert result.bundle.key == AGENT.address


async def test_agent_key_without_session_is_told_what_the_buyer_does(market: FakeMarket) -> None:
    watt = AsyncWattline(market.desk(AGENT))
    with pytest.raises(BadRequest) as caught:
        await watt.chat("hi", model="tiny-chat")
    assert caught.value.code is ErrorCode.NO_SESSION
    assert AGENT.address in str(caught.value.values["hint"])


async def test_used_session_of_another_journal_is_left_alone(market: FakeMarket, buyer: Signer) -> None:
    opened_for(market, buyer, AGENT.address)
    await AsyncWattline(market.desk(AGENT)).chat("hi", model="tiny-chat")
    with pytest.raises(BadRequest) as caught:
        await AsyncWattline(market.desk(AGENT)).chat("hi", model="tiny-chat", node=1)
    assert caught.value.code is ErrorCode.NO_SESSION


async def test_session_of_an_older_node_key_takes_no_orders(watt: AsyncWattline, market: FakeMarket) -> None:
    await watt.chat("hi", model="tiny-chat")
    node = market.nodes[1]
    node.signer = Signer(b"\x77" * 32)
    market.chain.epochs[1, 2] = node.signer.address
    market.chain.nodes[1] = dataclasses.replace(market.chain.nodes[1], epoch=2, signer=node.signer.address)
    first = market.orders[0].session_id
    assert (await watt.chat("hi", model="tiny-chat", node=1)).bundle.epoch == 2
    assert market.orders[-1].session_id != first


async def test_short_session_is_topped_up_instead_of_opening_another(
    market: FakeMarket, buyer: Signer
) -> None:
    policy = SessionPolicy(min_atoms=1, jobs_ahead=1)
    watt = AsyncWattline(market.desk(buyer), buyer=buyer, policy=policy)
    for _ in range(3):
        await watt.chat("hi", model="tiny-chat", max_tokens=16, node=1)
    assert len(market.chain.held) == 1
    assert any(path.endswith("/topup") for _, path, _ in market.calls)
    assert market.vouchers[-1].through_seq == 3


async def test_empty_account_is_a_money_error_with_the_amounts(market: FakeMarket, buyer: Signer) -> None:
    market.chain.accounts[buyer.address] = 3
    watt = AsyncWattline(market.desk(buyer), buyer=buyer)
    with pytest.raises(BadRequest) as caught:
        await watt.chat("hi", model="tiny-chat")
    assert caught.value.code is ErrorCode.SESSION_UNDERFUNDED
    assert caught.value.values["have_atoms"] == 3


async def test_session_about_to_expire_takes_no_orders(market: FakeMarket, buyer: Signer) -> None:
    watt = AsyncWattline(market.desk(buyer), buyer=buyer, policy=SessionPolicy(lifetime_seconds=300))
    await watt.chat("hi", model="tiny-chat", node=1)
    market.clock.ms += 200_000
    await watt.chat("hi", model="tiny-chat", node=1)
    assert len(market.chain.held) == 2


async def test_session_the_chain_forgot_is_retired(market: FakeMarket, buyer: Signer) -> None:
    journal = Journal(":memory:")
    await AsyncWattline(market.desk(buyer, journal), buyer=buyer).chat("hi", model="tiny-chat", node=1)
    market.chain.held.clear()
    watt = AsyncWattline(market.desk(buyer, journal), buyer=buyer)
    await watt.chat("hi", model="tiny-chat", node=1)
    assert [s.use for s in journal.sessions(buyer.address)].count(SessionUse.RETIRED) == 1


async def test_top_up_of_a_foreign_session_is_refused(market: FakeMarket, buyer: Signer) -> None:
    session_id = opened_for(market, buyer, buyer.address)
    watt = AsyncWattline(market.desk(buyer), buyer=buyer)
    with pytest.raises(BadRequest) as caught:
        await watt.top_up(to_hex(session_id), "1")
    assert caught.value.code is ErrorCode.UNKNOWN_SESSION


async def test_opened_session_can_name_another_key(watt: AsyncWattline, market: FakeMarket) -> None:
    session = await watt.open_session(1, "0.5", key=AGENT.address, lifetime_seconds=600)
    assert session.deposited_atoms == 500_000
    assert session.terms is not None
    assert session.session_id == session.terms.digest(DOMAIN)
    assert (session.session_id, AGENT.address) in market.chain.held
    assert await watt.sessions() == []


async def test_journal_on_disk_continues_the_sequence(market: FakeMarket, buyer: Signer, tmp_path) -> None:
    for _ in range(2):
        watt = AsyncWattline(market.desk(buyer, Journal(tmp_path / "j.db")), buyer=buyer)
        await watt.chat("hi", model="tiny-chat")
        await watt.aclose()
    assert [order.seq for order in market.orders] == [1, 2]
    assert market.vouchers[-1].amount_atoms == 24
    assert (tmp_path / "j.db").stat().st_mode & 0o077 == 0

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from marketplace.cli import screen
from marketplace.client.aio import AsyncWattline
from marketplace.client.journal import Journal, SessionUse
from marketplace.client.payer import Grant, Payer, grant_of, grant_path
from marketplace.client.problems import hint_of
from marketplace.client.sessions import SessionPolicy
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.hexes import from_hex, to_hex
from marketplace.protocol.messages import Open
from marketplace.protocol.signing import Signer
from tests.client.fake_market import FakeMarket
from tests.client.fakes import DOMAIN, NO_KEY, START_MS, Clock, FakeNode

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


# ------------------------------------------------------------------------------------------ granted keys


def granted(market: FakeMarket, buyer: Signer, node_ids: tuple[int, ...] = (), **caps: int) -> AsyncWattline:
    """A client of a key that may spend from the buyer's account."""
    usual = {"per_session_atoms": 400_000, "per_day_atoms": 500_000, "total_atoms": 1_000_000}
    state = dataclasses.replace(NO_KEY, **{"expires_at": START_MS // 1000 + 86_400} | usual | caps)
    market.chain.keys[buyer.address, AGENT.address] = state
    grant = Grant(name="agent", buyer=buyer.address, key=AGENT.address, node_ids=node_ids, domain=DOMAIN)
    return AsyncWattline(market.desk(AGENT), payer=Payer.granted(AGENT, grant, DOMAIN))


async def test_granted_key_opens_from_its_buyers_account(market: FakeMarket, buyer: Signer) -> None:
    before = market.chain.accounts[buyer.address]
    result = await granted(market, buyer).chat("hi", model="tiny-chat")
    assert result.bundle.key == AGENT.address
    (state,) = market.chain.held.values()
    assert before - market.chain.accounts[buyer.address] == state.deposited_atoms


async def test_granted_key_asks_for_no_more_than_its_caps_leave(market: FakeMarket, buyer: Signer) -> None:
    watt = granted(market, buyer, per_session_atoms=30_000, per_day_atoms=20_000)
    await watt.chat("hi", model="tiny-chat")
    (state,) = market.chain.held.values()
    assert state.deposited_atoms == 20_000


async def test_full_session_of_a_granted_key_is_followed_by_another(
    market: FakeMarket, buyer: Signer
) -> None:
    watt = granted(market, buyer, per_session_atoms=300)
    for _ in range(40):
        await watt.chat("hi", model="tiny-chat", max_tokens=16, node=1)
    assert len(market.chain.held) > 1
    assert max(state.deposited_atoms for state in market.chain.held.values()) <= 300


@pytest.mark.parametrize(
    ("caps", "remedy"),
    [
        ({"spent_atoms": 1_000_000}, "watt keys create"),
        ({"expires_at": START_MS // 1000}, "watt keys create"),
        ({"spent_today_atoms": 500_000, "day": START_MS // 86_400_000}, "midnight"),
    ],
)
async def test_used_up_key_is_told_what_would_help(
    market: FakeMarket, buyer: Signer, caps: dict[str, int], remedy: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        await granted(market, buyer, **caps).chat("hi", model="tiny-chat")
    assert caught.value.code is ErrorCode.SESSION_UNDERFUNDED
    assert remedy in str(caught.value.values["hint"])
    assert market.chain.held == {}


async def test_yesterdays_spending_is_not_counted_today(market: FakeMarket, buyer: Signer) -> None:
    yesterday = START_MS // 86_400_000 - 1
    watt = granted(market, buyer, spent_today_atoms=500_000, day=yesterday)
    await watt.chat("hi", model="tiny-chat")
    assert len(market.chain.held) == 1


async def test_listed_key_proves_its_node_and_refuses_others(market: FakeMarket, buyer: Signer) -> None:
    watt = granted(market, buyer, node_ids=(2, 5, 9))
    await watt.chat("hi", model="tiny-chat", node=2)
    (body,) = [body for method, path, body in market.calls if (method, path) == ("POST", "/v1/sessions")]
    assert len(from_hex(body["signature"])) > 65
    with pytest.raises(BadRequest, match="not node 1"):
        await watt.chat("hi", model="tiny-chat", node=1)


async def test_listed_key_goes_straight_to_a_listed_node(buyer: Signer) -> None:
    """More unlisted nodes are cheaper than an ask has attempts."""
    market = FakeMarket([FakeNode(i, price_per_job=10 * i) for i in range(1, 7)], Clock())
    market.chain.accounts[buyer.address] = 5_000_000
    result = await granted(market, buyer, node_ids=(6,)).chat("hi", model="tiny-chat")
    assert (result.node_id, result.attempts) == (6, 1)


async def test_listed_key_uses_a_session_its_buyer_opened_elsewhere(
    market: FakeMarket, buyer: Signer
) -> None:
    session_id = opened_for(market, buyer, AGENT.address)
    result = await granted(market, buyer, node_ids=(8,)).chat("hi", model="tiny-chat")
    assert (result.node_id, result.bundle.order.session_id, result.attempts) == (1, session_id, 1)


async def test_key_whose_nodes_are_all_away_is_told_which_it_may_pay(
    market: FakeMarket, buyer: Signer
) -> None:
    with pytest.raises(BadRequest, match="may pay nodes 8, 9, not node 1"):
        await granted(market, buyer, node_ids=(8, 9)).chat("hi", model="tiny-chat")


@pytest.mark.parametrize(
    ("caps", "cap"),
    [
        ({"per_session_atoms": 20}, "session"),
        ({"per_day_atoms": 20}, "day"),
        ({"total_atoms": 20}, "total"),
        ({"total_atoms": 20, "per_day_atoms": 20, "per_session_atoms": 20}, "total"),
    ],
)
async def test_cap_that_is_too_small_is_not_taken_for_an_empty_account(
    market: FakeMarket, buyer: Signer, caps: dict[str, int], cap: str
) -> None:
    with pytest.raises(BadRequest, match=f"the key's {cap} cap leaves 20") as caught:
        await granted(market, buyer, **caps).chat("hi", model="tiny-chat")
    assert caught.value.code is ErrorCode.SESSION_UNDERFUNDED
    assert f"{buyer.address} for a larger one" in str(caught.value.values["hint"])
    sentence, hint = worded(caught.value)
    assert f"the key's {cap} cap leaves 0.00002." in sentence
    assert "deposit" not in hint


async def test_key_of_an_empty_account_is_told_whose_it_is(market: FakeMarket, buyer: Signer) -> None:
    """A deposit of the key's own would go into another account."""
    market.chain.accounts[buyer.address] = 3
    with pytest.raises(BadRequest) as caught:
        await granted(market, buyer).chat("hi", model="tiny-chat")
    sentence, hint = worded(caught.value)
    assert f"the account of {buyer.address} has 0.000003." in sentence
    assert hint.startswith(f"Ask {buyer.address} for a deposit")


def worded(error: BadRequest) -> tuple[str, str]:
    return screen.worded(error, screen.Currency(), hint_of(error))


def test_grant_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    grant = Grant(name="agent", buyer=AGENT.address, key=AGENT.address, node_ids=(1, 2), domain=DOMAIN)
    path = grant_path(tmp_path / "agent.key")
    assert grant_of(tmp_path / "agent.key") is None
    grant.save(path)
    assert grant_of(tmp_path / "agent.key") == grant
    path.write_text("{}")
    with pytest.raises(BadRequest, match="no grant"):
        grant_of(tmp_path / "agent.key")

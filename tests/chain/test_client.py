"""The whole way of money on a real chain, as our client sees it."""

from __future__ import annotations

import pytest

from marketplace.chain import calls
from marketplace.chain.client import SessionState
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import ZERO_ADDRESS, to_hex
from marketplace.protocol.messages import Close, Open, TopUp, Voucher
from marketplace.protocol.signing import Signer
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain

BUYER, OWNER, NODE, SETTLER, AGENT, OTHER = (key(n) for n in range(1, 7))
DOLLAR = 1_000_000


def voucher(chain: Chain, session_id: bytes, seq: int, amount: int, signer: Signer) -> tuple[Voucher, bytes]:
    message = Voucher(session_id=session_id, through_seq=seq, amount_atoms=amount, receipts_root=b"\x09" * 32)
    return message, signer.sign(message, chain.deployment.domain)


def signed_open(chain: Chain, node_id: int, amount: int, agent: Signer) -> tuple[Open, bytes]:
    terms = chain.terms(BUYER, agent, node_id, amount)
    return terms, BUYER.sign(terms, chain.deployment.domain)


def test_money_goes_from_faucet_to_provider_and_the_rest_back(chain: Chain) -> None:
    here, client = chain.deployment, chain.client
    chain.fund(BUYER, 100 * DOLLAR)
    node_id = chain.add_node(OWNER, NODE, SETTLER, uri="https://node.example")
    opens = [signed_open(chain, node_id, 10 * DOLLAR, AGENT), signed_open(chain, node_id, 5 * DOLLAR, OTHER)]
    chain.send(SETTLER, calls.open_sessions(here, opens))
    ids = [terms.digest(here.domain) for terms, _ in opens]
    assert client.account_atoms(BUYER.address) == 85 * DOLLAR

    vouchers = [voucher(chain, ids[0], 3, 4 * DOLLAR, AGENT), voucher(chain, ids[1], 1, 2 * DOLLAR, OTHER)]
    chain.send(SETTLER, calls.settle(here, vouchers))
    state = client.node(node_id)
    assert state is not None
    assert state.earnings_atoms == 6 * DOLLAR

    chain.send(OTHER, calls.collect(here, [node_id]))
    assert client.token_balance_atoms(OWNER.address) == 6 * DOLLAR
    chain.node.increase_time(3600 + here.grace_seconds)
    chain.send(OTHER, calls.expire(here, [terms for terms, _ in opens]))
    assert client.account_atoms(BUYER.address) == 94 * DOLLAR
    chain.send(BUYER, calls.withdraw(here, 94 * DOLLAR, BUYER.address))
    assert client.token_balance_atoms(BUYER.address) == 94 * DOLLAR
    assert client.token_balance_atoms(here.escrow) == 0
    closed = client.session(ids[0], AGENT.address)
    assert closed is not None
    assert (closed.closed, closed.paid_atoms, closed.through_seq) == (True, 4 * DOLLAR, 3)


def test_events_tell_the_whole_way_in_order(chain: Chain) -> None:
    here, client = chain.deployment, chain.client
    first = client.head().number + 1
    chain.fund(BUYER, 20 * DOLLAR)
    node_id = chain.add_node(OWNER, NODE, SETTLER, uri="u")
    terms, signature = signed_open(chain, node_id, 10 * DOLLAR, AGENT)
    chain.send(SETTLER, calls.open_sessions(here, [(terms, signature)]))
    session_id = terms.digest(here.domain)
    good = voucher(chain, session_id, 3, 4 * DOLLAR, AGENT)
    forged = voucher(chain, session_id, 4, 5 * DOLLAR, OTHER)
    chain.send(SETTLER, calls.settle(here, [good, forged]))
    head = client.head()
    events = client.events(first, head.number)
    assert [e.name for e in events] == [
        "Deposited",
        "ProviderRegistered",
        "Staked",
        "NodeAdded",
        "SettlerSet",
        "SessionOpened",
        "VoucherSettled",
        "VoucherSkipped",
    ]
    settled, skipped = events[-2:]
    assert settled.args == {
        "sessionId": to_hex(session_id),
        "throughSeq": 3,
        "paid": 4 * DOLLAR,
        "receiptsRoot": "0x" + "09" * 32,
    }
    assert skipped.args == {"sessionId": to_hex(session_id), "status": 1}
    assert (settled.block_hash, settled.block_number) == (head.hash, head.number)
    opened = next(e for e in events if e.name == "SessionOpened")
    assert opened.args["buyer"] == BUYER.address
    assert opened.args["key"] == AGENT.address


def test_top_up_by_signature_raises_the_session(chain: Chain) -> None:
    here, client = chain.deployment, chain.client
    chain.fund(BUYER, 20 * DOLLAR)
    terms = chain.open_session(BUYER, AGENT, chain.add_node(OWNER, NODE, SETTLER), 5 * DOLLAR)
    session_id = terms.digest(here.domain)
    opened_at = client.head().number
    signature = BUYER.sign(TopUp(session_id=session_id, deposited_atoms=8 * DOLLAR), here.domain)
    chain.send(OTHER, calls.top_up(here, terms, 8 * DOLLAR, signature))
    now, then = (client.session(session_id, AGENT.address, at) for at in (None, opened_at))
    assert isinstance(now, SessionState)
    assert isinstance(then, SessionState)
    assert (now.deposited_atoms, then.deposited_atoms) == (8 * DOLLAR, 5 * DOLLAR)
    assert client.session(session_id, AGENT.address, opened_at - 1) is None
    assert client.session(session_id, OTHER.address) is None


def test_close_with_the_nodes_consent_returns_the_rest(chain: Chain) -> None:
    here, client = chain.deployment, chain.client
    chain.fund(BUYER, 20 * DOLLAR)
    terms = chain.open_session(BUYER, AGENT, chain.add_node(OWNER, NODE, SETTLER), 5 * DOLLAR)
    consent = Close(session_id=terms.digest(here.domain), min_paid_atoms=0)
    chain.send(OTHER, calls.close(here, terms, 0, NODE.sign(consent, here.domain)))
    assert client.account_atoms(BUYER.address) == 20 * DOLLAR


def test_nodes_and_stake_are_read_as_they_change(chain: Chain) -> None:
    here, client = chain.deployment, chain.client
    one = chain.add_node(OWNER, NODE, SETTLER, encryption_key=b"\x05" * 32, uri="u")
    two = chain.add_node(OWNER, OTHER, SETTLER)
    assert client.node_ids_of(OWNER.address) == [one, two]
    assert client.node_ids_of(BUYER.address) == []
    assert client.node_count() == two
    assert client.node(two + 1) is None
    before = client.node(one)
    assert before is not None
    assert (before.owner, before.signer, before.encryption_key) == (OWNER.address, NODE.address, b"\x05" * 32)
    assert (before.epoch, before.uri, before.settler, before.serving) == (1, "u", SETTLER.address, True)

    chain.send(OWNER, calls.rotate_node_key(here, one, AGENT.address, b"\x06" * 32))
    chain.send(OWNER, calls.set_settler(here, one, OTHER.address))
    chain.send(OWNER, calls.request_unstake(here, here.min_stake_atoms))
    after = client.node(one)
    assert after is not None
    assert (after.epoch, after.signer, after.settler, after.serving) == (
        2,
        AGENT.address,
        OTHER.address,
        False,
    )
    assert client.signer_at(one, 1) == NODE.address
    assert client.signer_at(one, 2) == AGENT.address
    assert client.signer_at(one, 3) == ZERO_ADDRESS
    stake = client.provider(OWNER.address)
    assert (stake.staked_atoms, stake.unstaking_atoms, stake.registered) == (0, here.min_stake_atoms, True)
    chain.node.increase_time(stake.unstake_at - chain.now())
    chain.send(OWNER, calls.withdraw_stake(here))
    assert client.token_balance_atoms(OWNER.address) == here.min_stake_atoms
    assert client.allowance_atoms(OWNER.address, here.registry) == 0


def test_reverts_arrive_with_the_contracts_words(chain: Chain) -> None:
    here = chain.deployment
    chain.fund(BUYER, 5)
    node_id = chain.add_node(OWNER, NODE, SETTLER)
    cases = [
        (BUYER, calls.withdraw(here, 7, BUYER.address), "Escrow_AboveAccount(got=7, limit=5)"),
        (
            BUYER,
            calls.open_sessions(here, [(chain.terms(BUYER, AGENT, node_id + 9, 1), b"")]),
            f"Escrow_NotServing(nodeId={node_id + 9})",
        ),
        (OWNER, calls.register(here, ""), f"NodeRegistry_AlreadyProvider(got={OWNER.address})"),
        (
            BUYER,
            calls.deposit(here, 9),
            f"ERC20InsufficientAllowance(spender={here.escrow}, allowance=0, needed=9)",
        ),
    ]
    for signer, call, words in cases:
        with pytest.raises(BadRequest) as caught:
            chain.send(signer, call)
        assert caught.value.code is ErrorCode.TRANSACTION_REVERTED
        assert caught.value.detail == words
        assert words.startswith(str(caught.value.values["error"]))


def test_client_plan_follows_a_real_reorganisation(chain: Chain) -> None:
    client, node = chain.client, chain.node
    node.mine(2)
    head = client.head().number
    refs = [client.block(n) for n in range(chain.deployment.deployed_block, head + 1)]
    known = [(ref.number, ref.hash) for ref in refs if ref]
    with node.reorganised(extra_blocks=1):
        node.mine(2)
        for number in (head + 1, head + 2):
            ref = client.block(number)
            assert ref is not None
            known.append((ref.number, ref.hash))
        assert client.plan(known).rollback_to is None
    todo = client.plan(known)
    assert (todo.rollback_to, todo.fetch_from, todo.fetch_to) == (head, head + 1, head + 3)
    parent = client.block(head + 1)
    assert parent is not None
    assert parent.parent == known[-3][1]


def test_balances_in_wei_are_read(chain: Chain) -> None:
    chain.node.set_balance(OTHER.address, 12_345)
    assert chain.client.eth_balance_wei(OTHER.address) == 12_345

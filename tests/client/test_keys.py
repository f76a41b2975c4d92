"""Keys on a real chain: granted with and without gas, held to their caps, taken back at once."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress

import pytest

from marketplace.chain import calls
from marketplace.client import relay
from marketplace.client.caps import DAY_SECONDS, Caps
from marketplace.client.keys import BuyerKeys
from marketplace.client.payer import Grant, Payer
from marketplace.client.spending import OwnSessions, sign_batch
from marketplace.client.wallet import BuyerWallet
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Voucher
from marketplace.protocol.signing import Signer
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain
BUYER, RELAYER, AGENT, OWNER, SETTLER = key(8), key(1), key(9), key(2), key(3)
ONE = 1_000_000
NODE_KEYS = [Signer(keccak(b"node %d" % i)) for i in range(3)]


@pytest.fixture
def keys(chain: Chain) -> BuyerKeys:
    chain.fund(BUYER, 20 * ONE)
    return BuyerKeys(BuyerWallet(BUYER, chain.client, chain.now_ms))


@pytest.fixture
def nodes(chain: Chain) -> list[int]:
    return [chain.add_node(OWNER, node_key, SETTLER) for node_key in NODE_KEYS]


def caps(keys: BuyerKeys, node_ids: tuple[int, ...] = (), **changed: int) -> Caps:
    usual = Caps(
        per_session_atoms=2 * ONE,
        per_day_atoms=4 * ONE,
        total_atoms=5 * ONE,
        expires_at=keys.wallet.chain.head().timestamp + 3 * DAY_SECONDS,
        node_ids=node_ids,
    )
    return dataclasses.replace(usual, **changed)


def agent(keys: BuyerKeys, node_ids: tuple[int, ...] = (), signer: Signer = AGENT) -> OwnSessions:
    domain = keys.wallet.deployment.domain
    grant = Grant(name="agent", buyer=BUYER.address, key=signer.address, node_ids=node_ids, domain=domain)
    wallet = BuyerWallet(signer, keys.wallet.chain)
    return OwnSessions(wallet, Payer.granted(signer, grant, domain))


def account(keys: BuyerKeys) -> int:
    return keys.wallet.chain.account_atoms(BUYER.address)


def test_key_granted_by_signature_needs_no_gas_of_the_buyer(
    chain: Chain,
    keys: BuyerKeys,
    nodes: list[int],
) -> None:
    signed = keys.sign_grant(AGENT.address, caps(keys))
    chain.node.set_balance(BUYER.address, 0)
    relayer = BuyerWallet(RELAYER, chain.client, chain.now_ms)
    relay.submit(relayer, relay.from_json(json.dumps(relay.to_json(signed))))
    (held,) = keys.list()
    assert (held.key, held.is_live, held.left_atoms, held.left_today_atoms) == (
        AGENT.address,
        True,
        5 * ONE,
        4 * ONE,
    )
    agent(keys).open(nodes[0], ONE, seconds=3600)
    assert account(keys) == 19 * ONE
    with pytest.raises(BadRequest, match="it was used or revoked"):
        relay.submit(relayer, signed)


def test_altered_late_and_foreign_grants_are_refused_before_gas_is_spent(
    chain: Chain,
    keys: BuyerKeys,
) -> None:
    signed = keys.sign_grant(AGENT.address, caps(keys), valid_seconds=60)
    relayer = BuyerWallet(RELAYER, chain.client, chain.now_ms)
    richer = dataclasses.replace(signed, message=dataclasses.replace(signed.message, total_atoms=19 * ONE))
    elsewhere = dataclasses.replace(signed, domain=dataclasses.replace(signed.domain, chain_id=1))
    for wrong, why in ((richer, "not its buyer"), (elsewhere, "on chain 1")):
        with pytest.raises(BadRequest, match=why):
            relay.submit(relayer, wrong)
    chain.node.increase_time(60)
    with pytest.raises(BadRequest, match="Escrow_GrantTooLate"):
        relay.submit(relayer, signed)


def test_caps_hold_by_session_day_and_total(
    chain: Chain,
    keys: BuyerKeys,
    nodes: list[int],
) -> None:
    keys.grant(AGENT.address, caps(keys))
    own = agent(keys)
    with pytest.raises(BadRequest, match="Escrow_AboveSessionCap"):
        own.open(nodes[0], 2 * ONE + 1, seconds=3600)
    terms = own.open(nodes[0], ONE, seconds=3600)
    own.top_up(terms, ONE)
    with pytest.raises(BadRequest, match="Escrow_AboveSessionCap"):
        own.top_up(terms, 1)
    own.open(nodes[1], 2 * ONE, seconds=3600)
    assert keys.held(AGENT.address).left_today_atoms == 0
    with pytest.raises(BadRequest, match="Escrow_AboveDayCap"):
        own.open(nodes[2], 1, seconds=3600)
    chain.node.increase_time(DAY_SECONDS)
    assert keys.held(AGENT.address).left_today_atoms == ONE
    with pytest.raises(BadRequest, match="Escrow_AboveTotalCap"):
        own.open(nodes[2], ONE + 1, seconds=3600)
    own.open(nodes[2], ONE, seconds=3600)
    chain.node.increase_time(3 * DAY_SECONDS)
    with pytest.raises(BadRequest, match="Escrow_KeyExpired"):
        own.open(nodes[2], 1, seconds=3600)


def test_leaked_key_takes_at_most_its_cap(keys: BuyerKeys, nodes: list[int]) -> None:
    """Whoever has it opens all it can; only staked nodes can earn that, and the account keeps the rest."""
    keys.grant(AGENT.address, caps(keys, per_day_atoms=5 * ONE))
    thief, taken = agent(keys), 0
    for amount in (2 * ONE, 2 * ONE, 2 * ONE, ONE, ONE, 1):
        with suppress(BadRequest):
            thief.open(nodes[0], amount, seconds=3600)
            taken += amount
    assert (taken, account(keys)) == (5 * ONE, 15 * ONE)
    with pytest.raises(BadRequest):
        thief.wallet.withdraw("1")


def test_revoked_key_is_over_at_once_and_stays_so(keys: BuyerKeys, nodes: list[int]) -> None:
    ahead = keys.sign_grant(AGENT.address, caps(keys))
    keys.grant(AGENT.address, caps(keys))
    own = agent(keys)
    terms = own.open(nodes[0], ONE, seconds=3600)
    keys.revoke(AGENT.address)
    (held,) = keys.list()
    assert (held.is_live, held.left_atoms) == (False, 0)
    for spend in (lambda: own.open(nodes[0], 1, seconds=3600), lambda: own.top_up(terms, 1)):
        with pytest.raises(BadRequest, match="Escrow_KeyExpired"):
            spend()
    with pytest.raises(BadRequest, match="used or revoked"):
        relay.submit(own.wallet, ahead)


def test_node_list_is_held_to_by_client_and_contract(keys: BuyerKeys, nodes: list[int]) -> None:
    listed = (nodes[0], nodes[2])
    keys.grant(AGENT.address, caps(keys, listed))
    own = agent(keys, listed)
    terms = own.open(nodes[2], ONE, seconds=3600)
    own.top_up(terms, ONE)
    with pytest.raises(BadRequest, match=f"not node {nodes[1]}"):
        own.open(nodes[1], ONE, seconds=3600)
    liar = agent(keys, tuple(nodes))
    with pytest.raises(BadRequest, match="Escrow_NodeNotAllowed"):
        liar.open(nodes[1], ONE, seconds=3600)


def test_useless_grants_are_refused_before_gas_is_spent(keys: BuyerKeys) -> None:
    for wrong in ({"expires_at": 1}, {"total_atoms": 0}, {"per_day_atoms": 1 << 64}):
        with pytest.raises(BadRequest, match="of no use"):
            keys.grant(AGENT.address, caps(keys, **wrong))
    with pytest.raises(BadRequest, match="needs no grant"):
        keys.grant(BUYER.address, caps(keys))


def test_grant_of_another_key_is_not_used(keys: BuyerKeys) -> None:
    domain = keys.wallet.deployment.domain
    grant = Grant(name="a", buyer=BUYER.address, key=AGENT.address, node_ids=(), domain=domain)
    with pytest.raises(BadRequest, match="the grant a is for"):
        Payer.granted(key(10), grant, domain)


def test_batch_of_vouchers_is_settled_under_one_signature(chain: Chain, nodes: list[int]) -> None:
    """Named slots save gas where there are enough to pay for naming them."""
    here, count = chain.deployment, 30
    chain.fund(BUYER, 20 * ONE)
    opens = [chain.terms(BUYER, AGENT, nodes[i % 3], ONE // 10) for i in range(count)]
    chain.send(BUYER, calls.open_sessions(here, [(terms, b"") for terms in opens]))
    vouchers = [
        Voucher(
            session_id=terms.digest(here.domain),
            through_seq=1,
            amount_atoms=1_000 + i,
            receipts_root=keccak(b"%d" % i),
        )
        for i, terms in enumerate(opens)
    ]
    for few, named in ((3, False), (count, True)):
        signature = sign_batch(AGENT, vouchers[:few], here.domain)
        call = calls.settle_batch(here, vouchers[:few], AGENT.address, signature, nodes)
        assert bool(call.access_list) is named
        plain = dataclasses.replace(call, slots=())
        gas = [chain.client.estimate_gas(SETTLER.address, c) for c in (call, plain)]
        assert (gas[0] < gas[1]) is named
        chain.send(SETTLER, call)
    paid = [chain.client.session(v.session_id, AGENT.address) for v in vouchers]
    assert [found.paid_atoms for found in paid if found] == [v.amount_atoms for v in vouchers]

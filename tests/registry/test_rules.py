from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marketplace.protocol.errors import Broken
from marketplace.registry import rules
from marketplace.registry.rules import World, fold
from tests.registry.histories import Chain, address, event, node_added, opened, session_id, settled


def test_a_buyer_has_what_was_deposited_less_what_left() -> None:
    world = fold(
        World(),
        [
            event("Deposited", buyer=address(1), amount=500),
            event("Withdrawn", buyer=address(1), to=address(2), amount=50),
            opened(),
            event("SessionToppedUp", sessionId=session_id(1), added=20, deposited=120),
        ],
    )
    assert world.accounts == {address(1): 500 - 50 - 100 - 20}
    assert world.sessions[session_id(1)].deposited_atoms == 120


def test_closing_returns_the_rest_to_the_buyer() -> None:
    closing = event("SessionClosed", sessionId=session_id(1), paid=30, returned=70)
    world = fold(World(accounts={address(1): 100}), [opened(), settled(1, 2, 30), closing])
    assert world.accounts == {address(1): 70}
    assert world.sessions[session_id(1)].closed


def test_a_node_earns_only_the_increase_of_a_cumulative_payment() -> None:
    world = fold(World(), [node_added(), opened(), settled(1, 2, 30), settled(1, 5, 45), settled(1, 5, 45)])
    assert world.nodes[1].earnings_atoms == 45
    assert world.sessions[session_id(1)].through_seq == 5


def test_collecting_empties_a_node() -> None:
    collected = event("Collected", nodeId=1, to=address(50), amount=29, fee=1)
    world = fold(World(), [node_added(), opened(), settled(1, 2, 30), collected, settled(1, 3, 37)])
    assert world.nodes[1].earnings_atoms == 7


def test_stake_counts_for_nodes_added_before_and_after() -> None:
    owner = address(50)
    world = fold(
        World(),
        [
            node_added(1),
            event("Staked", owner=owner, amount=70, staked=70),
            node_added(2),
            event("UnstakeRequested", owner=owner, amount=20, unlocksAt=9),
            node_added(3, owner=address(51)),
        ],
    )
    assert {node_id: node.stake_atoms for node_id, node in world.nodes.items()} == {1: 50, 2: 50, 3: 0}


def test_a_rotated_key_is_the_next_epoch() -> None:
    rotated = event("NodeKeyRotated", nodeId=1, epoch=2, signer=address(61), encryptionKey="0x08")
    node = fold(World(), [node_added(), rotated]).nodes[1]
    assert (node.epoch, node.signer, node.encryption_key) == (2, address(61), "0x08")


def test_folding_leaves_the_world_before_as_it_was() -> None:
    before = World(accounts={address(1): 1})
    fold(before, [event("Deposited", buyer=address(1), amount=5), node_added(), opened()])
    assert before == World(accounts={address(1): 1})


@pytest.mark.parametrize(
    "orphan", [settled(1, 1, 1), event("SessionClosed", sessionId=session_id(1), paid=0, returned=0)]
)
def test_an_event_of_a_session_that_never_opened_is_our_defect(orphan: rules.Event) -> None:
    with pytest.raises(Broken, match="never opened"):
        fold(World(), [orphan])


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"sessionId": "0xaa", "buyer": "0xb", "nodeId": 3}, "0xaa"),
        ({"nodeId": 3, "owner": "0xc"}, "node:3"),
        ({"buyer": "0xb", "amount": 1}, "0xb"),
        ({"owner": "0xc", "uri": ""}, "0xc"),
        ({"bps": 5, "effectiveAt": 1}, "escrow"),
    ],
)
def test_every_event_is_about_one_thing(args: dict[str, object], expected: str) -> None:
    assert rules.subject(args) == expected


@pytest.mark.parametrize(("epoch", "stake", "expected"), [(1, 5, True), (1, 4, False), (0, 9, False)])
def test_a_node_serves_with_a_key_and_the_least_stake(epoch: int, stake: int, expected: bool) -> None:
    assert rules.is_serving(epoch=epoch, stake_atoms=stake, min_stake_atoms=5) is expected


@given(seed=st.integers(0, 10**6), cut=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_folding_in_two_parts_is_folding_at_once(seed: int, cut: float) -> None:
    chain = Chain(random.Random(seed))  # noqa: S311
    for _ in range(15):
        chain.grow()
    at = int(len(chain.events) * cut)
    first = fold(World(), chain.events[:at])
    assert fold(first, chain.events[at:]) == fold(World(), chain.events)


def claimed_world() -> rules.World:
    """A session of 100 atoms, 50 of them claimed."""
    added = node_added(1)
    claimed = event(
        "Claimed",
        2,
        sessionId=session_id(1),
        throughSeq=4,
        amount=50,
        finalAt=9,
        receiptHashes=["0xaa", "0xbb"],
    )
    deposited = event("Deposited", buyer=address(1), amount=100)
    return rules.fold(rules.World(), [added, deposited, opened(), claimed])


def test_claim_waits_and_moves_no_money() -> None:
    held = claimed_world().sessions[session_id(1)]
    assert (held.paid_atoms, held.claimed_atoms, held.through_seq) == (0, 50, 0)


def test_finalised_claim_is_earned_and_ends_its_orders_and_what_is_held_waits_on() -> None:
    hold = event("ClaimHeld", 3, sessionId=session_id(1), receiptHash="0xaa", amount=20)
    final = event("ClaimFinalised", 3, 1, sessionId=session_id(1), throughSeq=4, amount=30, paid=30)
    world = rules.fold(claimed_world(), [hold, final])
    held = world.sessions[session_id(1)]
    assert (held.paid_atoms, held.through_seq, world.nodes[1].earnings_atoms) == (30, 4, 30)
    assert held.claimed_atoms == 20


def test_voucher_takes_the_place_of_a_claim() -> None:
    replaced = event("ClaimReplaced", 3, sessionId=session_id(1), amount=50)
    world = rules.fold(claimed_world(), [replaced, settled(1, 4, 60, 3, 1)])
    held = world.sessions[session_id(1)]
    assert (held.paid_atoms, held.claimed_atoms, world.nodes[1].earnings_atoms) == (60, 0, 60)


@pytest.mark.parametrize(
    ("is_paid", "closed", "expected"),
    [
        (True, False, (20, 20, 0)),
        (False, False, (0, 0, 0)),
        (True, True, (20, 20, 50)),
        (False, True, (0, 0, 70)),
    ],
)
def test_resolved_claim_is_the_nodes_or_the_buyers(
    *, is_paid: bool, closed: bool, expected: tuple[int, int, int]
) -> None:
    close = event("SessionClosed", 3, sessionId=session_id(1), paid=0, returned=50)
    resolved = event("ClaimResolved", 4, sessionId=session_id(1), amount=20, isPaid=is_paid)
    world = rules.fold(claimed_world(), [close, resolved] if closed else [resolved])
    held = world.sessions[session_id(1)]
    assert (held.paid_atoms, world.nodes[1].earnings_atoms, world.accounts[address(1)]) == expected
    assert held.claimed_atoms == 30


def test_slash_leaves_what_it_says() -> None:
    slashed = event("Slashed", 3, owner=address(50), amount=30, staked=70)
    world = rules.fold(rules.fold(rules.World(), [node_added(1)]), [slashed])
    assert world.nodes[1].stake_atoms == 70

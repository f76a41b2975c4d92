from __future__ import annotations

from marketplace.protocol.errors import ErrorCode
from marketplace.protocol.messages import Offer
from marketplace.quoting import rules
from marketplace.store.offers import Listing

NOW_MS = 1_000_000


def listing(node_id=1, *, price=10, model_id="0xaa", valid_until=2_000, **changes):
    offer = Offer(
        node_id=node_id,
        model_id=bytes(32),
        price_per_job_atoms=price,
        price_in_per_million_atoms=0,
        price_out_per_million_atoms=0,
        max_latency_ms=0,
        late_discount_bps=0,
        max_millijoules_per_million_out=0,
        valid_until=valid_until,
        salt=bytes(32),
    )
    values = {
        "node_id": node_id,
        "offer": offer,
        "offer_hash": f"0x{node_id}",
        "signature": b"",
        "model_id": model_id,
        "model_name": "tiny",
        "task": "chat",
        "context_tokens": 512,
        "loaded": True,
        "canary_bps": 0,
        "connected": True,
        "draining": False,
        "free_slots": 1,
        "queue_depth": 0,
        "epoch": 1,
        "signer": "0x",
        "stake_atoms": 1_000,
    }
    return Listing(**(values | changes))


def need(**changes):
    return rules.Need(**({"task": "chat", "units_in": 1, "units_out": 1} | changes))


def ranked(*listings, **changes):
    return rules.rank(listings, need(**changes), now_ms=NOW_MS, min_stake_atoms=1_000)


def test_cheapest_comes_first_then_the_shorter_queue_then_the_lower_id():
    found = ranked(listing(3), listing(2), listing(1, queue_depth=1), listing(4, price=5, queue_depth=1))
    assert [quote.listing.node_id for quote in found] == [4, 2, 3, 1]
    assert [quote.reason for quote in found] == ["cheapest", "fastest", "also able", "also able"]


def test_full_node_comes_after_dearer_free_ones():
    found = ranked(listing(1, free_slots=0, queue_depth=2), listing(2, price=11))
    assert [quote.listing.node_id for quote in found] == [2, 1]


def test_each_reason_against_an_offer_is_named():
    found = ranked(
        listing(1, connected=False),
        listing(2, draining=True),
        listing(3, valid_until=1_000),
        listing(4, price=11),
        listing(5, stake_atoms=999),
        listing(6, task="embed"),
        listing(7),
        listing(8, price=1 << 100),
        max_cost_atoms=10,
        tried=(7,),
    )
    assert {quote.listing.node_id: quote.why_not for quote in found} == {
        1: ErrorCode.NO_NODE,
        2: ErrorCode.NODE_BUSY,
        3: ErrorCode.OFFER_EXPIRED,
        4: ErrorCode.PRICE_ABOVE_MAX,
        5: ErrorCode.NO_NODE,
        6: ErrorCode.UNSUPPORTED,
        7: ErrorCode.NODE_FAILED,
        8: ErrorCode.PRICE_ABOVE_MAX,
    }
    assert not any(quote.eligible or quote.reason for quote in found)


def test_refusal_names_what_would_help():
    dear = ranked(listing(1, price=11), listing(2, price=12), max_cost_atoms=10)
    assert rules.refusal(dear, need(max_cost_atoms=10)) == (
        ErrorCode.PRICE_ABOVE_MAX,
        "the cheapest offer may cost 11 atoms, max_cost allows 10",
    )
    assert rules.refusal(ranked(listing(1, draining=True)), need())[0] is ErrorCode.NODE_BUSY
    assert rules.refusal(ranked(listing(1, connected=False)), need())[0] is ErrorCode.NO_NODE
    assert rules.refusal(ranked(listing(1)), need(node_id=2))[0] is ErrorCode.UNKNOWN_NODE


def test_name_stands_for_the_model_most_connected_nodes_serve():
    honest = [listing(1), listing(2), listing(3, connected=False)]
    other = [listing(4, model_id="0xbb"), listing(4, model_id="0xbb")]
    assert rules.resolve("tiny", honest + other) == "0xaa"
    assert rules.resolve("0xbb", honest + other) == "0xbb"
    assert rules.resolve("tiny", [listing(3, connected=False)]) == "0xaa"
    assert rules.resolve("none", honest) is None


def share_of(name, *listings):
    """How many of 2,000 askings by name get the model 0xbb."""
    asked = (rules.resolve(name, listings, number.to_bytes(4, "big")) for number in range(2_000))
    return sum(model_id == "0xbb" for model_id in asked)


def test_version_on_trial_gets_its_share_of_askings_by_name():
    old, trial = listing(1), listing(1, model_id="0xbb", canary_bps=500)
    assert 60 <= share_of("tiny", old, trial) <= 140
    assert share_of("tiny", old, listing(1, model_id="0xbb", canary_bps=10_000)) == 2_000


def test_share_of_one_node_is_its_share_of_what_all_nodes_of_the_name_get():
    trial = listing(1, model_id="0xbb", canary_bps=5_000)
    assert 400 <= share_of("tiny", listing(1), listing(2), trial) <= 600


def test_trial_gets_nothing_of_askings_by_id_and_nothing_while_its_node_is_away():
    old, trial = listing(1), listing(1, model_id="0xbb", canary_bps=10_000)
    assert rules.resolve("0xaa", [old], b"any") == "0xaa"
    assert rules.resolve("0xbb", [trial], b"any") == "0xbb"
    away = listing(2, model_id="0xbb", canary_bps=10_000, connected=False)
    assert share_of("tiny", old, away) == 0


def test_name_without_a_ticket_never_means_a_trial():
    trials = [listing(node, model_id="0xbb", canary_bps=9_000) for node in (1, 2, 3)]
    assert rules.resolve("tiny", [listing(1), *trials]) == "0xaa"


def test_trial_alone_under_its_name_serves_the_name():
    assert share_of("tiny", listing(1, model_id="0xbb", canary_bps=500)) == 2_000

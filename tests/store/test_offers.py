from __future__ import annotations

import pytest

from marketplace.store import offers
from marketplace.store.tables import NodeModelRow, NodeRow, OfferRow
from tests.quoting.test_rules import listing


@pytest.fixture
def node(store):
    with store.transaction() as tx:
        tx.add(
            NodeRow(
                node_id=1,
                owner="0xo",
                epoch=1,
                signer="0xn",
                encryption_key="0x",
                settler="0xn",
                uri="",
                stake_atoms=5,
                earnings_atoms=0,
            )
        )
    return store


def offer_row(name, price=10):
    return OfferRow(
        offer_hash=name,
        node_id=1,
        model_id="0xm",
        message=listing(price=price).offer.encode(),
        signature=b"s",
        valid_until=2_000,
        current=True,
        received_at_ms=1,
    )


def model_row():
    return NodeModelRow(node_id=1, model_id="0xm", name="tiny", task="chat", context_tokens=9, loaded=False)


def test_newest_list_replaces_the_former_and_old_offers_stay_known(node):
    for names in (["0xa", "0xb"], ["0xb", "0xc"], ["0xb", "0xc"]):
        with node.transaction() as tx:
            offers.replace(tx, 1, [offer_row(name) for name in names], [model_row()])
    with node.reading() as tx:
        assert [item.offer_hash for item in offers.listings(tx)] == ["0xb", "0xc"]
        assert [item.offer_hash for item in offers.listings(tx, "tiny", "0xc")] == ["0xc"]
        assert offers.listings(tx, "other") == []
        assert offers.read_offer(offers.find(tx, "0xa")).price_per_job_atoms == 10


def test_heartbeat_and_links_change_only_market_columns(node):
    pulse = offers.Pulse(free_slots=3, queue_depth=2, loaded=frozenset({"0xm"}), draining=True)
    with node.transaction() as tx:
        offers.replace(tx, 1, [], [model_row()])
        offers.beat(tx, 1, pulse, 77)
    with node.reading() as tx:
        row = offers.node(tx, 1)
        assert (row.free_slots, row.queue_depth, row.draining, row.connected, row.last_seen_ms) == (
            3,
            2,
            True,
            True,
            77,
        )
        assert (row.stake_atoms, row.epoch) == (5, 1)
        assert offers.models_of(tx, 1)[0].loaded
    with node.transaction() as tx:
        offers.leave_all(tx)
    with node.reading() as tx:
        assert not offers.node(tx, 1).connected
        assert offers.node(tx, (1 << 32) - 1) is None

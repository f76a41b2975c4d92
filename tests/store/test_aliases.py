from __future__ import annotations

from typing import Any

import pytest

from marketplace.store import aliases, offers
from marketplace.store.engine import Store
from tests.store.test_offers import model_row
from tests.store.test_offers import node as node

FIRST, SECOND = f"0x{1:064x}", f"0x{2:064x}"


def facts(alias: str, model_id: str = FIRST, **changes: Any) -> dict[str, Any]:
    columns = {"alias": alias, "model_id": model_id, "publisher": "0xp", "fixed": False, "block_number": 1}
    return {alias: columns | changes}


def meaning(store: Store, model: str) -> str:
    with store.reading() as tx:
        return aliases.meaning(tx, model)


@pytest.fixture
def named(store: Store) -> Store:
    with store.transaction() as tx:
        aliases.put(tx, facts("tiny@1.0", fixed=True) | facts("tiny@latest", SECOND))
    return store


def test_alias_means_the_model_the_register_says(named: Store) -> None:
    assert (meaning(named, "tiny@1.0"), meaning(named, "tiny@latest")) == (FIRST, SECOND)


def test_name_alone_means_its_latest_where_no_node_uses_the_name(named: Store) -> None:
    assert meaning(named, "tiny") == SECOND


def test_name_that_nodes_use_stays_theirs_and_the_alias_stays_the_registers(
    named: Store, node: Store
) -> None:
    with named.transaction() as tx:
        offers.replace(tx, 1, [], [model_row()])
    assert (meaning(named, "tiny"), meaning(named, "tiny@latest")) == ("tiny", SECOND)


@pytest.mark.parametrize("model", ["other", "other@1.0", FIRST, "", "@", "tiny@"])
def test_what_the_register_does_not_know_is_left_as_it_is(named: Store, model: str) -> None:
    assert meaning(named, model) == model


def test_moved_channel_means_the_newer_model_and_a_forgotten_one_nothing(named: Store) -> None:
    with named.transaction() as tx:
        aliases.put(tx, facts("tiny@latest", FIRST, block_number=9))
        aliases.forget(tx, ["tiny@1.0"])
        assert aliases.known(tx) == {"tiny@latest"}
    assert meaning(named, "tiny@latest") == FIRST


def test_models_show_their_oldest_aliases_and_not_more_than_a_few(store: Store) -> None:
    with store.transaction() as tx:
        for number in range(20):
            aliases.put(tx, facts(f"tiny@{number:02}", block_number=100 - number))
        found = aliases.of_models(tx, {FIRST, SECOND})
    assert [row.alias for row in found[FIRST]] == [f"tiny@{number:02}" for number in range(19, 11, -1)]
    assert found[SECOND] == []

"""The register of models on a chain: what is published, whose names are, and what the follower reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from marketplace.chain import models
from marketplace.chain.client import ChainClient
from marketplace.chain.models import Meaning
from marketplace.keeper.follow import Follower
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import ZERO_ADDRESS, keccak, to_hex
from marketplace.store import aliases
from marketplace.store.engine import Store
from marketplace.store.migrations import upgrade
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain

PUBLISHER, STRANGER = key(4), key(5)
FIRST, SECOND = keccak(b"first"), keccak(b"second")


@pytest.fixture
def register(chain: Chain) -> Chain:
    for model_id in (FIRST, SECOND):
        chain.send(PUBLISHER, models.publish(chain.deployment, model_id, "https://models.example/m"))
    return chain


def test_published_model_gets_a_version_for_good_and_a_channel_that_moves(register: Chain) -> None:
    here, client = register.deployment, register.client
    assert (models.publisher_of(client, "tiny"), models.resolve(client, "tiny", "1")) == (None, None)
    register.send(PUBLISHER, models.release(here, "tiny", "1", FIRST))
    register.send(PUBLISHER, models.point(here, "tiny", "latest", FIRST))
    register.send(PUBLISHER, models.point(here, "tiny", "latest", SECOND))
    assert models.resolve(client, "tiny", "1") == Meaning(model_id=FIRST, fixed=True)
    assert models.resolve(client, "tiny", "latest") == Meaning(model_id=SECOND, fixed=False)
    assert models.publisher_of(client, "tiny") == PUBLISHER.address
    assert models.is_published(client, FIRST)
    assert not models.is_published(client, keccak(b"third"))


def test_refusals_arrive_under_their_names(register: Chain) -> None:
    here = register.deployment
    register.send(PUBLISHER, models.release(here, "tiny", "1", FIRST))
    with pytest.raises(BadRequest, match="ModelRegistry_NotPublisher"):
        register.send(STRANGER, models.release(here, "tiny", "2", SECOND))
    with pytest.raises(BadRequest, match="ModelRegistry_VersionStands"):
        register.send(PUBLISHER, models.release(here, "tiny", "1", SECOND))
    with pytest.raises(BadRequest, match="ModelRegistry_WrongByte"):
        register.send(PUBLISHER, models.release(here, "Tiny", "1", FIRST))


def test_market_follows_names_through_a_reorganisation(register: Chain, tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/market.db")
    upgrade(store)
    follower = Follower(register.client, store, lambda *_: None)
    here = register.deployment
    register.send(PUBLISHER, models.release(here, "tiny", "1", FIRST))
    with register.node.reorganised():
        register.send(PUBLISHER, models.point(here, "tiny", "latest", SECOND))
        follower.step()
        assert meanings(store) == [to_hex(FIRST), to_hex(SECOND)]
    follower.step()
    assert meanings(store) == [to_hex(FIRST), "tiny@latest"]
    store.close()


def test_chain_without_a_register_is_followed_as_before(register: Chain) -> None:
    former = dataclasses.replace(register.deployment, models=ZERO_ADDRESS)
    client = ChainClient(register.url, former)
    client.check()
    head = client.head().number
    assert [e for e in client.events(head, head) if e.contract == "ModelRegistry"] == []
    assert [e.name for e in register.client.events(head, head)] == ["ModelPublished"]


def meanings(store: Store) -> list[str]:
    with store.reading() as tx:
        return [aliases.meaning(tx, alias) for alias in ("tiny@1", "tiny@latest")]

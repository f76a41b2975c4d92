"""A key's grant on disk: what it names, and which of its node lists the escrow holds it to."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from marketplace.client import opening
from marketplace.client.aio import AsyncWattline
from marketplace.client.payer import Grant
from marketplace.client.problems import hint_of
from marketplace.protocol import nodelist
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.signing import Signer
from tests.client.fakes import DOMAIN, NO_KEY, FakeChain, FakeNode

BUYER, AGENT = Signer(b"\x11" * 32), Signer(b"\x12" * 32)


def grant(node_ids: tuple[int, ...] = (1, 2)) -> Grant:
    return Grant(name="agent", buyer=BUYER.address, key=AGENT.address, node_ids=node_ids, domain=DOMAIN)


def test_grant_that_nobody_sent_yet_leaves_the_old_list_in_force() -> None:
    both = grant().with_signed((3,), 2).with_signed((), 2)
    for node_ids in ((1, 2), (3,), ()):
        assert both.at(nodelist.root(node_ids)).node_ids == node_ids
    assert both.at(b"\x07" * 32).node_ids == (1, 2)


def test_grant_survives_its_file(tmp_path: Path) -> None:
    for made in (grant(), grant(()).with_signed((3, 4), 7)):
        made.save(tmp_path / "agent.grant.json")
        assert Grant.load(tmp_path / "agent.grant.json") == made


def test_grant_file_without_signed_lists_is_read(tmp_path: Path) -> None:
    old = {k: v for k, v in grant().to_json().items() if not k.startswith("signed_")}
    (tmp_path / "agent.grant.json").write_text(json.dumps(old))
    assert Grant.load(tmp_path / "agent.grant.json") == grant()


@pytest.mark.parametrize(
    "changed", [{"key": None}, {"node_ids": 5}, {"signed_node_ids": [3]}, {"domain": []}]
)
def test_file_that_is_no_grant_says_what_to_do(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "agent.grant.json"
    for text in ("", "[]", "null", json.dumps(grant().to_json() | changed)):
        path.write_text(text)
        with pytest.raises(BadRequest, match="is no grant") as caught:
            Grant.load(path)
        assert hint_of(caught.value).startswith("Remove it")


async def test_client_signs_for_the_list_the_escrow_has(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeChain()
    fake.keys[BUYER.address, AGENT.address] = dataclasses.replace(
        NO_KEY, expires_at=1 << 40, nonce=2, nodes_root=nodelist.root((3,))
    )
    fake.add_node(3, FakeNode(3).signer.address)
    monkeypatch.setattr(opening, "_connect", lambda _rpc_url, _deployment: fake)
    opened = await AsyncWattline.open(
        gateway_url="http://gateway.test",
        rpc_url="http://rpc.test",
        deployment="deployment.json",
        key=AGENT,
        grant=grant().with_signed((3,), 2),
    )
    async with opened as watt:
        with pytest.raises(BadRequest, match="may pay nodes 3, not node 1"):
            await watt.open_session(1, "0.5")

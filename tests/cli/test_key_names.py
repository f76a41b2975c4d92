"""A key's name: whose it is, and what the file of that name says, on a real chain."""

from __future__ import annotations

from pathlib import Path

import pytest

from marketplace.client.keys import BuyerKeys
from marketplace.client.payer import Grant
from marketplace.protocol.errors import ChainTrouble, ErrorCode
from marketplace.protocol.signing import Signer
from tests.cli.conftest import Ran, Watt
from tests.cli.on_chain import RELAYER, wallet
from tests.client.courtroom import BUYER, Courtroom
from tests.hardhat import key

pytestmark = pytest.mark.chain
THEIRS = key(9).address


@pytest.fixture
def other_node(room: Courtroom) -> int:
    return room.chain.add_node(key(2), Signer(b"\x55" * 32), key(3))


def live(watt: Watt) -> dict[str, str]:
    return {row["key"]: row["name"] for row in watt("keys", "list", "--json").json["keys"] if row["live"]}


def test_name_of_a_live_key_is_not_given_to_another(watt: Watt, room: Courtroom) -> None:
    """Else the first stays live without a name, and revoking by name takes back the wrong one."""
    first = watt("keys", "create", "agent", "--cap", 5, "--json").json["key"]
    refused = watt("keys", "create", "agent", "--cap", 5, "--address", THEIRS)
    assert (refused.code, "watt keys revoke agent" in refused.err) == (1, True)
    assert live(watt) == {first: "agent"}
    assert watt("keys", "revoke", "agent", "--json").json["key"] == first
    assert watt("keys", "create", "agent", "--cap", 5, "--address", THEIRS).code == 0
    assert live(watt) == {THEIRS: "agent"}
    assert watt("keys", "create", "agent", "--cap", 5).code == 1
    assert watt("keys", "create", "agent", "--cap", 4, "--address", THEIRS).code == 0


def test_outside_keys_name_is_not_given_to_a_fresh_key(watt: Watt, room: Courtroom, tmp_path: Path) -> None:
    assert watt("keys", "create", "agent", "--cap", 5, "--address", THEIRS).code == 0
    assert watt("keys", "create", "agent", "--cap", 5).code == 1
    assert list(tmp_path.rglob("agent.key")) == []


def test_name_of_a_grant_that_may_still_be_sent_is_kept(watt: Watt, room: Courtroom) -> None:
    for _ in range(2):
        assert watt("keys", "create", "agent", "--cap", 5, "--gasless").code == 0
        assert watt("keys", "create", "agent", "--cap", 5, "--address", THEIRS, "--gasless").code == 1
        assert watt("keys", "revoke", "agent").code == 0
    assert watt("keys", "create", "agent", "--cap", 5, "--address", THEIRS, "--gasless").code == 0


def test_one_key_can_be_revoked_by_each_of_its_names(watt: Watt, room: Courtroom) -> None:
    for name in ("one", "two"):
        assert watt("keys", "create", name, "--cap", 5, "--address", THEIRS).code == 0
    assert [watt("keys", "revoke", name, "--json").json["key"] for name in ("one", "two")] == [THEIRS] * 2


def test_agent_keeps_its_nodes_until_a_signed_grant_is_sent(
    watt: Watt, room: Courtroom, other_node: int, tmp_path: Path
) -> None:
    made = watt("keys", "create", "agent", "--cap", 5, "--nodes", f"{room.node_id},77", "--json").json
    room.chain.node.set_balance(made["key"], 10**18)

    def opened(node_id: int) -> Ran:
        amount = ("--amount", "0.25", "--direct", "--wallet", made["key_file"])
        return watt("session", "open", "--node", node_id, *amount)

    signed = watt("keys", "create", "agent", "--cap", 5, "--nodes", f"{other_node},78", "--gasless")
    (tmp_path / "grant.json").write_text(signed.out)
    assert (opened(room.node_id).code, opened(other_node).code) == (0, 4)
    assert watt("keys", "submit", "grant.json", "--wallet", wallet(tmp_path, RELAYER)).code == 0
    assert (opened(room.node_id).code, opened(other_node).code) == (4, 0)


def test_grant_that_was_not_confirmed_in_time_is_written_down(
    watt: Watt, room: Courtroom, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def late(*_: object) -> None:
        raise ChainTrouble(ErrorCode.CHAIN_UNAVAILABLE, "not confirmed", tx_hash="0x12")

    monkeypatch.setattr(BuyerKeys, "grant", late)
    assert watt("keys", "create", "agent", "--cap", 5, "--nodes", "1,2", "--address", THEIRS).code == 5
    (file,) = tmp_path.rglob("agent.grant.json")
    kept = Grant.load(file)
    assert (kept.buyer, kept.key, kept.node_ids, kept.signed_nonce) == (BUYER.address, THEIRS, (1, 2), 1)

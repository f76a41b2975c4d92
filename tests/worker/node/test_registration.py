"""A machine becomes a node: idempotent, crash-safe, and never with a key it should not have."""

from pathlib import Path
from typing import Any

import pytest

from marketplace.chain import calls
from marketplace.chain.client import ChainClient
from marketplace.protocol.errors import BadRequest, ChainTrouble, ErrorCode
from marketplace.protocol.signing import Signer
from tests.hardhat import Chain, key
from worker.ledger import Ledger
from worker.node.keys import PublicKeys
from worker.node.registration import LOW_GAS_WEI, Registrar

pytestmark = pytest.mark.chain
OWNER = key(10)
KEYS = PublicKeys(
    signer=Signer(b"\x41" * 32).address, settler=Signer(b"\x42" * 32).address, encryption_key=b"\x43" * 32
)


def registrar(chain: Chain, folder: Path, /, **changes: Any) -> Registrar:
    values: dict[str, Any] = {
        "chain": chain.client,
        "deployment": chain.deployment,
        "journal": Ledger(f"sqlite:///{folder / 'ledger.db'}").transactions,
        "owner": OWNER,
        "keys": KEYS,
        "now_ms": chain.now_ms,
    }
    return Registrar(**values | changes)


def test_new_provider_registers_stakes_adds_its_node_and_fuels_its_settler(
    chain: Chain, tmp_path: Path
) -> None:
    node_id, state = registrar(chain, tmp_path).ensure(None, stake_atoms=0, uri="https://node.example")
    assert (state.owner, state.signer, state.settler) == (OWNER.address, KEYS.signer, KEYS.settler)
    assert (state.encryption_key, state.uri, state.epoch, state.serving) == (
        KEYS.encryption_key,
        "https://node.example",
        1,
        True,
    )
    assert chain.client.provider(OWNER.address).staked_atoms == chain.deployment.min_stake_atoms
    assert chain.client.eth_balance_wei(KEYS.settler) >= LOW_GAS_WEI
    assert chain.client.node_ids_of(OWNER.address) == [node_id]


def test_second_start_changes_nothing(chain: Chain, tmp_path: Path) -> None:
    node_id, _ = registrar(chain, tmp_path).ensure(None, stake_atoms=0, uri="")
    head = chain.client.head().number
    assert registrar(chain, tmp_path).ensure(node_id, stake_atoms=0, uri="")[0] == node_id
    assert registrar(chain, tmp_path, owner=None).ensure(node_id, stake_atoms=0, uri="")[0] == node_id
    assert chain.client.head().number == head


def test_transaction_left_by_a_crash_is_waited_for_and_not_repeated(chain: Chain, tmp_path: Path) -> None:
    made = registrar(chain, tmp_path)
    made.ensure(None, stake_atoms=0, uri="")
    other = PublicKeys(signer=Signer(b"\x51" * 32).address, settler=KEYS.settler, encryption_key=b"\x43" * 32)
    journal = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}").transactions
    with chain.node.held():
        sender = chain.sender(OWNER, journal=journal)
        call = calls.add_node(chain.deployment, other.signer, other.encryption_key, other.settler, "")
        sender.send(f"add-node:{journal.next_nonce(OWNER.address)}", call)
    chain.node.mine()
    registrar(chain, tmp_path, keys=other).ensure(None, stake_atoms=0, uri="")
    assert len(chain.client.node_ids_of(OWNER.address)) == 2


def test_higher_stake_in_the_settings_is_added(chain: Chain, tmp_path: Path) -> None:
    registrar(chain, tmp_path).ensure(None, stake_atoms=0, uri="")
    more = chain.deployment.min_stake_atoms + 5
    registrar(chain, tmp_path).ensure(None, stake_atoms=more, uri="")
    assert chain.client.provider(OWNER.address).staked_atoms == more


def test_changed_settler_is_told_to_the_chain(chain: Chain, tmp_path: Path) -> None:
    node_id, _ = registrar(chain, tmp_path).ensure(None, stake_atoms=0, uri="")
    moved = PublicKeys(
        signer=KEYS.signer, settler=Signer(b"\x44" * 32).address, encryption_key=KEYS.encryption_key
    )
    _, state = registrar(chain, tmp_path, keys=moved).ensure(node_id, stake_atoms=0, uri="")
    assert state.settler == moved.settler


def test_unregistered_node_without_its_owners_key_says_what_to_set(chain: Chain, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="WATT_NODE_OWNER_KEY"):
        registrar(chain, tmp_path, owner=None).ensure(None, stake_atoms=0, uri="")


def test_id_of_another_chains_past_is_not_trusted(chain: Chain, tmp_path: Path) -> None:
    chain.add_node(key(11), Signer(b"\x61" * 32), key(12))
    node_id, state = registrar(chain, tmp_path).ensure(1, stake_atoms=0, uri="")
    assert node_id != 1
    assert state.signer == KEYS.signer


def test_wrong_chain_is_refused_before_anything_is_sent(chain: Chain, tmp_path: Path) -> None:
    class Elsewhere(ChainClient):
        def check(self) -> None:
            raise ChainTrouble(ErrorCode.WRONG_CHAIN)

    client = Elsewhere(chain.url, chain.deployment)
    with pytest.raises(ChainTrouble):
        registrar(chain, tmp_path, chain=client).ensure(None, stake_atoms=0, uri="")
    assert not chain.client.provider(OWNER.address).registered


def test_well_known_key_is_refused_off_the_local_chain(chain: Chain, tmp_path: Path) -> None:
    from dataclasses import replace

    class Unchecked(ChainClient):
        def check(self) -> None:
            return

    real = replace(chain.deployment, chain_id=8453)
    known = PublicKeys(signer=key(1).address, settler=KEYS.settler, encryption_key=KEYS.encryption_key)
    with pytest.raises(BadRequest, match="well-known"):
        registrar(
            chain, tmp_path, chain=Unchecked(chain.url, real), deployment=real, keys=known, owner=None
        ).ensure(None, stake_atoms=0, uri="")

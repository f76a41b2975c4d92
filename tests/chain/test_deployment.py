from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace.chain import models
from marketplace.chain.deployment import Deployment
from marketplace.chain.devkeys import HARDHAT_KEYS, refuse_test_key
from marketplace.chain.journal import MemoryJournal
from marketplace.protocol.errors import BadRequest, Broken, LostRace
from marketplace.protocol.hexes import ZERO_ADDRESS
from marketplace.protocol.signing import Signer
from marketplace.protocol.transactions import TxJournal, TxRecord, TxState
from tests.chain.test_codec import HERE


def test_deployment_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deployment.json"
    HERE.save(path)
    assert Deployment.load(path) == HERE
    assert [p.name for p in path.parent.iterdir()] == ["deployment.json"]


def test_load_names_the_remedy_when_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="watt up"):
        Deployment.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        "3",
        json.dumps(HERE.to_json() | {"escrow": "0x12"}),
        json.dumps(HERE.to_json() | {"treasury": "0x90F79bf6EB2c4f870365E785982E1f101E93b907"}),
        json.dumps(HERE.to_json() | {"escrow": 5}),
        json.dumps(HERE.to_json() | {"chain_id": "1"}),
        json.dumps(HERE.to_json() | {"chain_id": True}),
        json.dumps(HERE.to_json() | {"genesis_hash": "0x12"}),
        json.dumps(HERE.to_json() | {"surplus": 1}),
    ],
)
def test_load_refuses_a_file_that_is_not_ours(tmp_path: Path, text: str) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(text)
    with pytest.raises(Broken, match="remove it"):
        Deployment.load(path)


def test_file_from_before_there_was_a_register_of_models_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deployment.json"
    path.write_text(json.dumps({k: v for k, v in HERE.to_json().items() if k != "models"}))
    assert Deployment.load(path) == dataclasses.replace(HERE, models=ZERO_ADDRESS)
    assert not Deployment.load(path).has_models


def test_models_get_no_names_where_there_is_no_register() -> None:
    with pytest.raises(BadRequest, match="without a register"):
        models.publish(HERE, b"\x01" * 32, "")


def test_domain_is_chain_and_escrow() -> None:
    assert (HERE.domain.chain_id, HERE.domain.escrow) == (31337, HERE.escrow)


def test_well_known_keys_are_refused_off_local_chains() -> None:
    first = Signer(HARDHAT_KEYS[0]).address
    assert first == "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    assert len(set(HARDHAT_KEYS)) == 20
    for key in HARDHAT_KEYS:
        refuse_test_key(Signer(key).address, 31337)
        with pytest.raises(BadRequest, match="well-known"):
            refuse_test_key(Signer(key).address, 1)
    refuse_test_key(Signer(b"\x01" * 32).address, 1)


def test_types_and_calls_import_without_web3() -> None:
    code = (
        "import sys, marketplace.chain.deployment, marketplace.chain.calls, marketplace.chain.blocks,"
        " marketplace.chain.journal, marketplace.chain.devkeys; sys.exit('web3' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def record(intent: str, nonce: int, sender: str = "0xa") -> TxRecord:
    return TxRecord(
        intent=intent,
        sender=sender,
        nonce=nonce,
        raw=b"",
        tx_hash=b"",
        state=TxState.SIGNED,
        created_at_ms=0,
    )


def test_memory_journal_gives_intent_and_nonce_to_one_record() -> None:
    journal: TxJournal = MemoryJournal()
    assert journal.next_nonce("0xa") == 0
    journal.add(record("one", 4))
    with pytest.raises(LostRace):
        journal.add(record("one", 5))
    with pytest.raises(LostRace):
        journal.add(record("two", 4))
    journal.add(record("two", 4, sender="0xb"))
    assert journal.next_nonce("0xa") == 5


def test_memory_journal_lists_what_is_not_confirmed_by_nonce() -> None:
    journal = MemoryJournal()
    for nonce in (3, 1, 2):
        journal.add(record(str(nonce), nonce))
    journal.mark("2", TxState.CONFIRMED, block_number=1, block_hash=b"h")
    journal.mark("3", TxState.MINED, block_number=1, block_hash=b"h")
    assert [r.nonce for r in journal.pending("0xa")] == [1, 3]
    assert journal.find("2") == dataclasses.replace(
        record("2", 2), state=TxState.CONFIRMED, block_number=1, block_hash=b"h"
    )

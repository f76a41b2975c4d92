"""Records of deletions: canonical, signed, and read strictly."""

from __future__ import annotations

import json

import pytest

from marketplace.protocol import deletion
from marketplace.protocol.deletion import Deletion, SignedDeletion
from marketplace.protocol.errors import BadRequest
from marketplace.protocol.hexes import to_hex
from marketplace.protocol.signing import Signer

GATEWAY = Signer(b"\x21" * 32)
MADE = Deletion(
    job_id="job_a",
    key="0x" + "11" * 20,
    order_hashes=("0x" + "22" * 32,),
    receipt_ids=("rcpt_1",),
    reason=deletion.ASKED,
    deleted_at_ms=1_800_000_000_000,
    chain_id=31337,
    escrow="0x" + "33" * 20,
)


RECORD = MADE.encode()


def shown(record=RECORD, signer=GATEWAY, **changes):
    signature = to_hex(deletion.sign(record, signer))
    return {"record": record.decode(), "signature": signature, "signer": signer.address} | changes


def changed(**fields):
    return json.dumps({**json.loads(MADE.encode()), **fields}).encode()


def test_a_record_reads_back_and_names_its_signer():
    found = SignedDeletion.from_json({"job_id": "job_a", "deletion": shown()})
    assert (found.deletion, found.signer()) == (MADE, GATEWAY.address)
    assert SignedDeletion.from_json(shown()).deletion == MADE


def test_a_record_signed_by_another_or_changed_names_another_signer():
    assert SignedDeletion.from_json(shown(signer=Signer(b"\x22" * 32))).signer() != GATEWAY.address
    other = shown(record=changed(job_id="job_b"), signature=shown()["signature"])
    assert SignedDeletion.from_json(other).signer() != GATEWAY.address
    assert SignedDeletion.from_json(shown(signature="0x" + "00" * 65)).signer() is None


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"deletion": None},
        {},
        {"record": "x"},
        shown(signature="0x00"),
        shown(record=b"not json"),
        shown(record=b"[]"),
        shown(record=changed(v=2)),
        shown(record=changed(kind="other")),
        shown(record=changed(more=1)),
        shown(record=changed(job_id=1)),
        shown(record=changed(deleted_at_ms="soon")),
        shown(record=changed(chain_id=True)),
        shown(record=changed(receipt_ids=[1])),
        shown(record=changed(order_hashes="0x")),
    ],
)
def test_what_is_no_record_is_refused(data):
    with pytest.raises(BadRequest, match="not a record of a deletion"):
        SignedDeletion.from_json(data)

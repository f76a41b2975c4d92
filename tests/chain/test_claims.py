"""Claimed jobs, read off the transaction that claimed them by a buyer who was given nothing."""

from __future__ import annotations

import dataclasses

import pytest

from marketplace.chain import calls
from marketplace.chain.calls import SignedJob
from marketplace.chain.claims import jobs_in
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Order, Receipt
from marketplace.protocol.signing import Signer, compact, expanded
from tests.chain.test_codec import HERE, TERMS

KEY, NODE, STRANGER = (Signer(bytes([n]) * 32) for n in (1, 2, 3))
DOMAIN = HERE.domain
SESSION = TERMS.digest(DOMAIN)
WORD = 32


def job(seq: int, node: Signer = NODE) -> SignedJob:
    order = Order(
        session_id=SESSION,
        seq=seq,
        offer_hash=keccak(b"offer"),
        request_hash=keccak(b"request"),
        max_amount_atoms=100,
        issued_at_ms=1,
        deadline_ms=2,
        reply_key=bytes(32),
    )
    receipt = Receipt(
        order_hash=order.digest(DOMAIN),
        response_hash=keccak(b"response"),
        exec_hash=keccak(b"annex"),
        units_in=1,
        units_out=1,
        amount_atoms=50,
        started_at_ms=1,
        finished_at_ms=2,
        energy_millijoules=0,
        status=1,
    )
    return SignedJob(
        order=order,
        order_signature=KEY.sign(order, DOMAIN),
        receipt=receipt,
        receipt_signature=node.sign(receipt, DOMAIN),
    )


def calldata(*jobs: SignedJob) -> bytes:
    return calls.claim(HERE, TERMS, jobs).data


def found_in(data: bytes, *jobs: SignedJob) -> list[SignedJob]:
    digests = [each.receipt.digest(DOMAIN) for each in jobs]
    return jobs_in(data, digests, session_id=SESSION, node_key=NODE.address, domain=DOMAIN)


@pytest.mark.parametrize("around", [(b"", b""), (b"\x01" * 37, b"\x02" * 5), (SESSION, SESSION)])
def test_jobs_are_found_wherever_calldata_carries_them(around: tuple[bytes, bytes]) -> None:
    jobs = [job(seq) for seq in (1, 2, 7)]
    assert found_in(around[0] + calldata(*jobs) + around[1], *jobs) == jobs


def test_look_alike_with_anothers_signature_is_passed_over() -> None:
    bait, wanted = job(1, STRANGER), job(1)
    assert found_in(calldata(bait) + calldata(wanted), wanted) == [wanted]
    assert found_in(calldata(bait), wanted) == []


def test_receipt_of_another_order_is_passed_over() -> None:
    wanted = job(1)
    assert found_in(calldata(dataclasses.replace(wanted, order=job(2).order)), wanted) == []


def test_signature_in_its_short_form_is_kept_as_it_was_claimed() -> None:
    whole = job(1)
    short = dataclasses.replace(whole, receipt_signature=b"".join(compact(whole.receipt_signature)))
    assert expanded(short.receipt_signature) == whole.receipt_signature
    assert found_in(calldata(short), short) == [short]


def test_signature_before_its_receipt_is_found() -> None:
    wanted = job(1)
    (at,) = [n for n in range(len(calldata(wanted))) if calldata(wanted).startswith(SESSION, n)]
    head = calldata(wanted)[at : at + 20 * WORD]
    back = (-(WORD + 65)).to_bytes(WORD, "big", signed=True)
    tail = (65).to_bytes(WORD, "big") + wanted.receipt_signature
    moved = tail + head[:-WORD] + back + calldata(wanted)[at + 20 * WORD :]
    assert found_in(moved, wanted) == [wanted]
    outside = (-(1 << 200)).to_bytes(WORD, "big", signed=True)
    assert found_in(tail + head[:-WORD] + outside, wanted) == []


@pytest.mark.parametrize("data", [b"", SESSION, calldata(job(1))[:-WORD], calldata(job(2))])
def test_job_that_is_not_there_is_not_found(data: bytes) -> None:
    cut = data[: data.find(SESSION) + 20 * WORD] if len(data) > WORD else data
    assert found_in(cut, job(1)) == []

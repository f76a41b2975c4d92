"""A buyer without a receipt: what its node claims is on the chain, and so is all that a dispute needs."""

from __future__ import annotations

import pytest

from marketplace.chain import calls, court
from marketplace.chain.disputes import CaseState
from marketplace.client.claims import ClaimedJob, Known
from marketplace.client.disputes import Disputes
from marketplace.client.spending import OwnSessions
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from tests.client.courtroom import BUYER, PRICE_ATOMS, Courtroom, journal_with
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain


@pytest.fixture
def room(chain: Chain) -> Courtroom:
    return Courtroom(chain)


def claimed(desk: Disputes, room: Courtroom, seq: int = 1) -> ClaimedJob:
    return desk.claims(room.session_id).job(seq)


def window_over(room: Courtroom) -> None:
    room.chain.node.increase_time(room.chain.deployment.challenge_seconds)


def test_node_that_delivers_nothing_and_claims_gives_the_money_back(room: Courtroom) -> None:
    never_seen = room.bundle()
    desk = Disputes(room.wallet(BUYER), journal_with(room, never_seen))
    before = room.account()
    room.claim(never_seen)
    (job,) = desk.claims(room.session_id).jobs
    assert (job.order, job.receipt) == (never_seen.order, never_seen.receipt)
    assert (job.known, job.is_disputed) == (Known.UNDELIVERED, False)
    assert job.disputable_until > room.chain.now()
    desk.demand(job)
    seen = claimed(desk, room)
    assert (seen.is_disputed, seen.disputable_until) == (True, 0)
    case = desk.show(desk.case_id(job)).view
    room.chain.node.increase_time(max(1, case.phase_ends - room.chain.now()))
    desk.advance(desk.case_id(job))
    assert desk.show(desk.case_id(job)).view.state is CaseState.UPHELD
    room.chain.node.increase_time(3_600)
    OwnSessions(room.wallet(BUYER)).expire(room.terms)
    assert room.account() == before + 1_000_000


def test_claimed_jobs_are_told_apart_by_the_journal(room: Courtroom) -> None:
    jobs = [room.bundle(seq) for seq in (1, 2, 3, 4)]
    journal = journal_with(room, *jobs[:3])
    for seq, digest in ((1, room.disputes().case_id(jobs[0])), (2, keccak(b"another receipt"))):
        journal.end_seat(room.session_id, seq, amount_atoms=PRICE_ATOMS, digest=digest)
    room.claim(*jobs)
    found = Disputes(room.wallet(BUYER), journal).claims(room.session_id).jobs
    assert [(job.order.seq, job.known) for job in found] == [
        (1, Known.DELIVERED),
        (2, Known.OTHER_RECEIPT),
        (3, Known.UNDELIVERED),
        (4, Known.NOT_ORDERED),
    ]
    assert {job.known for job in room.disputes().claims(room.session_id).jobs} == {Known.UNKNOWN}


def test_delivered_receipt_and_claimed_other_one_are_a_proof(room: Courtroom) -> None:
    delivered, desk = room.bundle(), room.disputes()
    room.claim(room.again(delivered))
    desk.prove_two_receipts(delivered, claimed(desk, room))
    assert room.chain.client.claim(room.session_id) is None
    desk.pay_award(claimed(desk, room))


def test_answered_demand_is_challenged_without_a_bundle(room: Courtroom) -> None:
    desk = room.disputes()
    room.claim(room.bundle(1), room.bundle(2))
    desk.demand(claimed(desk, room))
    case_id = desk.case_id(claimed(desk, room))
    room.chain.node.increase_time(30)
    room.disputes(key(3)).answer(case_id, b"sealed")
    # The case outlives the window of the claim that still waits for the other job.
    left = room.chain.client.claim(room.session_id)
    assert left is not None
    room.chain.node.set_next_timestamp(left.final_at)
    room.chain.node.mine()
    desk.challenge(claimed(desk, room), keccak(b"evidence"))
    assert desk.show(case_id).view.state is CaseState.DRAWING


def test_job_that_nobody_claims_is_named(room: Courtroom) -> None:
    assert room.disputes().claims(room.session_id).jobs == ()
    room.claim(room.bundle(1))
    with pytest.raises(BadRequest, match="shows an order 2") as caught:
        claimed(room.disputes(), room, 2)
    assert caught.value.code is ErrorCode.UNKNOWN_RECEIPT
    with pytest.raises(BadRequest, match="not to be found"):
        room.disputes().claims(bytes(32))


def test_claim_that_shows_nothing_is_named(room: Courtroom, monkeypatch: pytest.MonkeyPatch) -> None:
    room.claim(room.bundle())
    desk = Disputes(room.wallet(BUYER), journal_with(room))
    monkeypatch.setattr(room.chain.client, "tx_input", lambda tx_hash: b"\x01\x02\x03\x04")
    found = desk.claims(room.session_id)
    assert (found.jobs, len(found.hidden)) == ((), 1)
    with pytest.raises(BadRequest, match="hides it"):
        found.job(1)


# --------------------------------------------------------------------------------- proofs beside a claim


def test_job_that_was_demanded_can_still_be_proven_a_fault(room: Courtroom) -> None:
    first, desk = room.bundle(), room.disputes()
    room.claim(first)
    desk.demand(first)
    desk.prove_two_receipts(first, room.again(first))
    assert court.proof(room.chain.client, first.order.digest(first.domain)).is_proven


def test_fault_is_proven_after_the_claims_window_as_long_as_the_court_takes_it(room: Courtroom) -> None:
    dear, desk = room.bundle(amount=PRICE_ATOMS + 1), room.disputes()
    room.claim(dear)
    window_over(room)
    desk.prove_overcharge(dear)
    assert court.proof(room.chain.client, dear.order.digest(dear.domain)).is_proven


def test_claim_past_its_window_has_to_be_finalised_before_a_challenge(room: Courtroom) -> None:
    bundle, desk = room.bundle(), room.disputes()
    room.claim(bundle)
    window_over(room)
    for dispute in (lambda: desk.demand(bundle), lambda: desk.challenge(bundle, keccak(b"evidence"))):
        with pytest.raises(BadRequest, match="waits to be finalised") as caught:
            dispute()
        assert "watt session finalise 0x" in str(caught.value.values["hint"])
    OwnSessions(room.wallet(BUYER)).finalise(room.terms)
    desk.challenge(bundle, keccak(b"evidence"))
    assert desk.show(desk.case_id(bundle)).view.state is CaseState.DRAWING


def test_window_of_an_idle_chain_is_over_by_the_time_of_the_next_block(room: Courtroom) -> None:
    room.claim(room.bundle())
    room.chain.node.rpc.once("evm_increaseTime", room.chain.deployment.challenge_seconds)
    assert claimed(room.disputes(), room).disputable_until == 0


def test_job_is_demanded_once(room: Courtroom) -> None:
    bundle, desk = room.bundle(), room.disputes()
    room.claim(bundle, room.bundle(2))
    desk.demand(bundle)
    with pytest.raises(BadRequest, match="disputed already"):
        desk.demand(bundle)


# ------------------------------------------------------------------------------------------------- bond


def test_bond_that_is_not_in_the_wallet_costs_no_transaction(room: Courtroom) -> None:
    bundle, desk, here = room.bundle(), room.disputes(), room.chain.deployment
    room.claim(bundle)
    desk.wallet.send(calls.approve(here, here.escrow, 20_000_000))
    desk.wallet.send(calls.deposit(here, 20_000_000))
    assert room.chain.client.token_balance_atoms(BUYER.address) < desk.bond_atoms()
    sent = room.chain.client.nonce(BUYER.address)
    for dispute in (lambda: desk.demand(bundle), lambda: desk.challenge(bundle, keccak(b"evidence"))):
        with pytest.raises(BadRequest, match="tokens") as caught:
            dispute()
        assert caught.value.code is ErrorCode.SESSION_UNDERFUNDED
        assert "watt wallet withdraw" in str(caught.value.values["hint"])
    assert room.chain.client.nonce(BUYER.address) == sent


def test_bad_amount_enrols_nobody(room: Courtroom) -> None:
    room.enrol_jurors()
    desk = room.disputes(key(10))
    sent = room.chain.client.nonce(key(10).address)
    for amount in (".", "", "0.", "0.0000001"):
        with pytest.raises(BadRequest):
            desk.enrol(amount)
    assert room.chain.client.nonce(key(10).address) == sent
    desk.enrol("0")

"""Claim, dispute, and every end a dispute can have, by real signatures on a real chain."""

from __future__ import annotations

import dataclasses

import pytest

from marketplace.chain import calls, court, disputes
from marketplace.chain.codec import encode_call
from marketplace.chain.disputes import CaseState, Verdict
from marketplace.client.spending import OwnSessions
from marketplace.protocol.errors import BadRequest, ErrorCode
from marketplace.protocol.hexes import keccak
from marketplace.protocol.messages import Voucher
from tests.client.courtroom import BUYER, JURORS, MAX_ATOMS, OWNER, PRICE_ATOMS, SETTLER, Courtroom
from tests.hardhat import Chain, key

pytestmark = pytest.mark.chain
EVIDENCE = keccak(b"evidence")


@pytest.fixture
def room(chain: Chain) -> Courtroom:
    return Courtroom(chain)


def state(room: Courtroom, case_id: bytes) -> CaseState:
    return room.disputes().show(case_id).view.state


def after_window(room: Courtroom, case_id: bytes) -> None:
    """Waits the present phase of a case out and moves it on."""
    ends = room.disputes().show(case_id).view.phase_ends
    room.chain.node.increase_time(max(1, ends - room.chain.now()))
    room.disputes().advance(case_id)


# -------------------------------------------------------------------------------------------- claims


def test_undisputed_claim_is_finalised_after_its_window(room: Courtroom) -> None:
    own = OwnSessions(room.wallet(BUYER))
    room.claim(room.bundle(1), room.bundle(2))
    seen = own.view(room.session_id)
    assert seen.claim is not None
    assert (seen.claim.pending_atoms, seen.free_atoms) == (2 * PRICE_ATOMS, 1_000_000 - 2 * PRICE_ATOMS)
    with pytest.raises(BadRequest, match="Escrow_TooEarly"):
        own.finalise(room.terms)
    room.chain.node.increase_time(room.chain.deployment.challenge_seconds)
    own.finalise(room.terms)
    seen = own.view(room.session_id)
    assert (seen.claim, seen.state.paid_atoms, seen.state.through_seq) == (None, 2 * PRICE_ATOMS, 2)


def test_session_past_its_grace_returns_the_rest(room: Courtroom) -> None:
    own, before = OwnSessions(room.wallet(BUYER)), room.account()
    with pytest.raises(BadRequest, match="Escrow_TooEarly"):
        own.expire(room.terms)
    room.chain.node.increase_time(3_600 + room.chain.deployment.grace_seconds)
    own.expire(room.terms)
    assert room.account() == before + 1_000_000
    assert own.view(room.session_id).free_atoms == 0


def test_session_that_was_opened_in_odd_calldata_is_found_by_its_buyer(room: Courtroom) -> None:
    here, terms = room.chain.deployment, room.chain.terms(BUYER, BUYER, room.node_id, 10)
    plain = calls.open_sessions(here, [(terms, BUYER.sign(terms, here.domain))])
    # Padding that is not zero: the escrow takes it, a strict decoder does not.
    room.chain.send(key(7), dataclasses.replace(plain, data=plain.data[:-1] + b"\x01"))
    assert OwnSessions(room.wallet(BUYER)).terms(terms.digest(here.domain)) == terms


# -------------------------------------------------------------------------------------------- proofs


def test_two_receipts_for_one_order_slash_the_node_and_pay_the_buyer(room: Courtroom) -> None:
    first = room.bundle()
    staked, tokens = room.staked(), room.chain.client.token_balance_atoms(BUYER.address)
    room.disputes().prove_two_receipts(first, room.again(first))
    minimum = room.chain.deployment.min_stake_atoms
    assert room.staked() == max(0, staked - minimum - 10 * MAX_ATOMS)
    room.disputes(key(7)).pay_award(first)
    assert room.chain.client.token_balance_atoms(BUYER.address) == tokens + 2 * MAX_ATOMS
    with pytest.raises(BadRequest, match="no award"):
        room.disputes().pay_award(first)


def test_claimed_one_of_two_receipts_is_struck_from_the_claim(room: Courtroom) -> None:
    first = room.bundle()
    other = room.again(first)
    room.claim(other)
    room.disputes().prove_two_receipts(first, other)
    assert room.chain.client.claim(room.session_id) is None
    proof = court.proof(room.chain.client, first.order.digest(first.domain))
    assert proof.award_atoms == 2 * MAX_ATOMS - PRICE_ATOMS


def test_overcharge_is_proven_with_the_offer_in_the_bundle(room: Courtroom) -> None:
    dear, staked = room.bundle(amount=PRICE_ATOMS + 1), room.staked()
    room.disputes().prove_overcharge(dear)
    assert room.staked() < staked
    with pytest.raises(BadRequest, match="Court_NotAbovePrice"):
        room.disputes().prove_overcharge(room.bundle(seq=2))


def test_files_that_prove_nothing_cost_nothing(room: Courtroom) -> None:
    first = room.bundle()
    for second, why in ((first, "same receipt"), (room.bundle(seq=2), "different orders")):
        with pytest.raises(BadRequest, match=why):
            room.disputes().prove_two_receipts(first, second)


def test_bundle_of_another_market_is_refused(room: Courtroom) -> None:
    foreign = dataclasses.replace(room.bundle(), domain=dataclasses.replace(room.bundle().domain, chain_id=1))
    with pytest.raises(BadRequest, match="on chain 1"):
        room.disputes().demand(foreign)


# ------------------------------------------------------------------------------------------- demands


def test_silent_node_loses_what_it_claimed(room: Courtroom) -> None:
    bundle, desk = room.bundle(), room.disputes()
    room.claim(bundle)
    before = room.account()
    desk.demand(bundle)
    after_window(room, desk.case_id(bundle))
    assert state(room, desk.case_id(bundle)) is CaseState.UPHELD
    assert room.chain.client.claim(room.session_id) is None
    assert court.juror(room.chain.client, BUYER.address).balance_atoms == desk.bond_atoms()
    desk.withdraw("3")
    room.chain.node.increase_time(3_600)
    OwnSessions(room.wallet(BUYER)).expire(room.terms)
    assert room.account() == before + 1_000_000


def test_answered_demand_ends_for_the_node_and_returns_the_bond(room: Courtroom) -> None:
    bundle, desk = room.bundle(), room.disputes()
    room.claim(bundle)
    desk.demand(bundle)
    case_id = desk.case_id(bundle)
    with pytest.raises(BadRequest, match="Court_NotNode"):
        desk.answer(case_id, b"sealed")
    room.disputes(SETTLER).answer(case_id, b"sealed")
    assert state(room, case_id) is CaseState.ANSWERED
    assert court.juror(room.chain.client, BUYER.address).balance_atoms == desk.bond_atoms()
    after_window(room, case_id)
    assert state(room, case_id) is CaseState.DISMISSED
    paid = room.chain.client.session(room.session_id, BUYER.address)
    assert paid is not None
    assert paid.paid_atoms == PRICE_ATOMS


def test_job_that_nothing_bills_cannot_be_demanded(room: Courtroom) -> None:
    with pytest.raises(BadRequest) as caught:
        room.disputes().demand(room.bundle())
    assert caught.value.code is ErrorCode.NOT_FOUND


# ----------------------------------------------------------------------------------------- judgement


@pytest.mark.parametrize("verdict", [Verdict.GUILTY, Verdict.CLEAR])
def test_majority_of_jurors_decides(room: Courtroom, verdict: Verdict) -> None:
    bundle, desk, staked = room.bundle(), room.disputes(), room.staked()
    room.claim(bundle)
    room.enrol_jurors()
    desk.challenge(bundle, EVIDENCE)
    case_id = desk.case_id(bundle)
    assert desk.show(case_id).view.evidence_hash == EVIDENCE
    seated = room.seat_jurors(case_id)
    for juror in seated:
        room.disputes(juror).commit(case_id, verdict)
    assert state(room, case_id) is CaseState.REVEALING
    for juror in seated:
        assert room.disputes(juror).reveal(case_id)[0] is verdict
    rules = court.rules(room.chain.client)
    fee = 5_000_000 + rules.juror_fee_atoms
    assert {court.juror(room.chain.client, j.address).balance_atoms for j in seated} == {fee}
    if verdict is Verdict.GUILTY:
        assert state(room, case_id) is CaseState.UPHELD
        assert room.staked() == staked - 10 * PRICE_ATOMS
    else:
        assert state(room, case_id) is CaseState.DISMISSED
        assert room.staked() == staked
        owner = court.juror(room.chain.client, OWNER.address)
        assert owner.balance_atoms == rules.bond_atoms - 3 * rules.juror_fee_atoms


def test_paid_job_is_judged_as_well(room: Courtroom) -> None:
    bundle, here = room.bundle(), room.chain.deployment
    voucher = Voucher(
        session_id=room.session_id, through_seq=1, amount_atoms=PRICE_ATOMS, receipts_root=bytes(32)
    )
    room.chain.send(SETTLER, calls.settle(here, [(voucher, BUYER.sign(voucher, here.domain))]))
    room.disputes().challenge(bundle, EVIDENCE)
    assert state(room, room.disputes().case_id(bundle)) is CaseState.DRAWING


def test_without_jurors_the_money_goes_back_and_nobody_is_slashed(room: Courtroom) -> None:
    bundle, desk, staked = room.bundle(), room.disputes(), room.staked()
    room.claim(bundle)
    desk.challenge(bundle, EVIDENCE)
    room.chain.node.mine(2)
    desk.advance(desk.case_id(bundle))
    assert state(room, desk.case_id(bundle)) is CaseState.VOID
    assert room.staked() == staked
    assert room.chain.client.claim(room.session_id) is None
    assert desk.juror().balance_atoms == desk.bond_atoms()


def test_silent_jurors_lose_their_deposit_and_are_replaced(room: Courtroom) -> None:
    bundle, desk = room.bundle(), room.disputes()
    room.claim(bundle)
    room.enrol_jurors()
    desk.challenge(bundle, EVIDENCE)
    case_id = desk.case_id(bundle)
    silent, *willing = room.seat_jurors(case_id)
    for juror in willing:
        room.disputes(juror).commit(case_id, Verdict.GUILTY)
    after_window(room, case_id)
    lost = court.rules(room.chain.client).juror_deposit_atoms
    assert court.juror(room.chain.client, silent.address).balance_atoms == 5_000_000 - lost
    replaced = next(juror for juror in room.seat_jurors(case_id) if juror not in willing)
    assert replaced is not silent
    room.disputes(replaced).commit(case_id, Verdict.GUILTY)
    for juror in (*willing, replaced):
        room.disputes(juror).reveal(case_id)
    assert state(room, case_id) is CaseState.UPHELD


def test_sealed_verdict_is_worked_out_as_the_court_does(room: Courtroom) -> None:
    bundle, desk = room.bundle(), room.disputes()
    room.claim(bundle)
    desk.challenge(bundle, EVIDENCE)
    case_id, salt, here = desk.case_id(bundle), keccak(b"salt"), room.chain.deployment
    for verdict in Verdict:
        asked = encode_call("Court", "commitmentOf", case_id, OWNER.address, int(verdict), salt)
        expected = room.chain.client.call(here.court, asked)
        assert disputes.commitment(case_id, 1, OWNER.address, verdict, salt) == expected


def test_referred_demand_is_judged(room: Courtroom) -> None:
    bundle, desk = room.bundle(), room.disputes()
    room.claim(bundle)
    desk.demand(bundle)
    room.disputes(OWNER).refer(desk.case_id(bundle), EVIDENCE)
    assert state(room, desk.case_id(bundle)) is CaseState.DRAWING


def test_juror_enrols_resigns_and_takes_its_money(room: Courtroom) -> None:
    room.enrol_jurors()
    desk = room.disputes(JURORS[0])
    assert desk.juror().is_enrolled
    desk.resign()
    desk.withdraw("5")
    left = desk.juror()
    assert (left.balance_atoms, left.is_enrolled) == (0, False)
    with pytest.raises(BadRequest, match="Court_NotStaked"):
        room.disputes().enrol("1")


def test_verdict_that_was_not_sealed_cannot_be_opened(room: Courtroom) -> None:
    bundle, desk = room.bundle(), room.disputes()
    room.claim(bundle)
    desk.challenge(bundle, EVIDENCE)
    with pytest.raises(BadRequest, match="no sealed verdict"):
        desk.reveal(desk.case_id(bundle))
    with pytest.raises(BadRequest, match="no case"):
        desk.show(bytes(32))


def test_verdict_after_a_sham_is_sealed_anew(room: Courtroom) -> None:
    bundle, here, stranger = room.bundle(), room.chain.deployment, key(7)
    voucher = Voucher(
        session_id=room.session_id, through_seq=1, amount_atoms=PRICE_ATOMS, receipts_root=bytes(32)
    )
    room.chain.send(SETTLER, calls.settle(here, [(voucher, BUYER.sign(voucher, here.domain))]))
    room.enrol_jurors()
    room.chain.send(stranger, calls.faucet(here, stranger.address, 3_000_000))
    case_id, verdict = room.disputes().case_id(bundle), Verdict.CHALLENGER_WITHHELD
    sealed: list[dict[str, bytes]] = []
    for challenger in (stranger, BUYER):
        room.disputes(challenger).challenge(bundle, EVIDENCE)
        seated = room.seat_jurors(case_id)
        for juror in seated:
            room.disputes(juror).commit(case_id, verdict)
        case = room.disputes().show(case_id)
        assert case.view.round == 1
        sealed.append({seat.juror: seat.commitment for seat in case.seats})
        for juror in seated:
            room.disputes(juror).reveal(case_id)
    assert state(room, case_id) is CaseState.DISMISSED
    again = sealed[0].keys() & sealed[1].keys()
    assert again
    assert all(sealed[0][juror] != sealed[1][juror] for juror in again)

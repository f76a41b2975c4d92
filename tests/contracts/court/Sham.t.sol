// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {CaseState, Evidence, Verdict} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

/// @title A stranger challenges a paid job and shows nothing, so that nobody else can have it judged
contract ShamTest is CourtFixture {
    Evidence private _job1;
    bytes32 private _caseId;

    function setUp() public override {
        super.setUp();
        _seatJurors(3);
        (_caseId, _job1) = _challengePaid(10e6);
        _judge(Verdict.ChallengerWithheld, Verdict.ChallengerWithheld, Verdict.Clear);
    }

    function test_ShamLeavesTheBuyerItsChallenge() public {
        uint256 paidOut = BOND - 3 * FEE;
        assertEq(_balance(provider), paidOut);
        _again(buyer.addr);
        assertEq(court.caseOf(_caseId).challenger, buyer.addr);
        assertEq(court.caseOf(_caseId).round, 1);
        _assertSolvent(1);
        _judge(Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        _assertState(_caseId, CaseState.Upheld);
        assertEq(_balance(buyer.addr), BOND + 20e6);
        assertEq(_balance(provider), paidOut);
        assertEq(_balance(challenger), 0);
        assertEq(_stakeOf(provider), MIN_STAKE - 100e6);
        _assertSolvent(0);
    }

    function test_ShamLeavesTheKeyItsChallengeToo() public {
        _fund(key.addr);
        _again(key.addr);
        _assertState(_caseId, CaseState.Drawing);
    }

    /// @dev Three jurors, and all of them sat in the sham: it has used none of them up.
    function test_ShamUsesUpNoJurors() public {
        _again(buyer.addr);
        _draw(_caseId);
        _assertState(_caseId, CaseState.Committing);
    }

    /// @dev Or whoever likes no jury that was drawn would show nothing, and draw another.
    function test_ShamIsNoWayToAnotherJuryForAStranger() public {
        address[2] memory strangers = [challenger, stranger];
        _fund(stranger);
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(strangers[i]);
            vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NotBuyer.selector, strangers[i]));
            court.challenge(_job1, EVIDENCE_HASH);
        }
    }

    function test_ShamIsNoWayToAThirdJuryForAnybody() public {
        _again(buyer.addr);
        _judge(Verdict.ChallengerWithheld, Verdict.ChallengerWithheld, Verdict.ChallengerWithheld);
        _assertState(_caseId, CaseState.Dismissed);
        vm.prank(buyer.addr);
        vm.expectRevert(_wrongState(_caseId));
        court.challenge(_job1, EVIDENCE_HASH);
    }

    function test_ShamIsNoDemand() public {
        vm.prank(buyer.addr);
        vm.expectRevert(_wrongState(_caseId));
        court.demand(_job1);
    }

    function test_ShamLeavesTheDisputeTimeAsItIs() public {
        vm.warp(_end());
        vm.prank(buyer.addr);
        vm.expectRevert(_error(ICourt.Court_TooLate.selector, _end(), _end()));
        court.challenge(_job1, EVIDENCE_HASH);
        vm.warp(_end() - 1);
        _again(buyer.addr);
    }

    function test_ShamIsWhatAMajorityCallsSo() public {
        Evidence memory evidence = _paid();
        vm.prank(challenger);
        _caseId = court.challenge(evidence, EVIDENCE_HASH);
        _judge(Verdict.ChallengerWithheld, Verdict.Clear, Verdict.Clear);
        vm.prank(buyer.addr);
        vm.expectRevert(_wrongState(_caseId));
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ShamOfTheBuyersOwnIsTheEnd() public {
        Evidence memory evidence = _paid();
        vm.prank(buyer.addr);
        _caseId = court.challenge(evidence, EVIDENCE_HASH);
        _judge(Verdict.ChallengerWithheld, Verdict.ChallengerWithheld, Verdict.ChallengerWithheld);
        _fund(key.addr);
        vm.prank(key.addr);
        vm.expectRevert(_wrongState(_caseId));
        court.challenge(evidence, EVIDENCE_HASH);
    }

    /// @dev Nobody has to draw jurors in time, and a bond that comes back costs nothing.
    function test_ACaseThatEndsWithoutAVerdictLeavesTheBuyerItsChallengeToo() public {
        Evidence memory evidence = _paid();
        vm.prank(challenger);
        _caseId = court.challenge(evidence, EVIDENCE_HASH);
        _runOut();
        assertTrue(court.caseOf(_caseId).isSham);
        vm.prank(buyer.addr);
        court.challenge(evidence, EVIDENCE_HASH);
        assertFalse(court.caseOf(_caseId).isSham);
        _judge(Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        _assertState(_caseId, CaseState.Upheld);
        _assertSolvent(0);
    }

    function test_ACaseOfTheBuyersThatEndsWithoutAVerdictIsTheEnd() public {
        Evidence memory evidence = _paid();
        vm.prank(buyer.addr);
        _caseId = court.challenge(evidence, EVIDENCE_HASH);
        _runOut();
        vm.prank(buyer.addr);
        vm.expectRevert(_wrongState(_caseId));
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function _paid() private returns (Evidence memory evidence) {
        evidence = _evidence(_job(2, 10e6));
        _settleOne(sessionId, 2, 20e6);
    }

    function _runOut() private {
        while (court.caseOf(_caseId).state < CaseState.Upheld) {
            vm.warp(court.caseOf(_caseId).phaseEnds);
            court.advance(_caseId);
        }
        _assertState(_caseId, CaseState.Void);
    }

    function _again(address who) private {
        vm.prank(who);
        court.challenge(_job1, EVIDENCE_HASH);
    }

    function _judge(Verdict a, Verdict b, Verdict c) private {
        _draw(_caseId);
        _vote(_caseId, a, b, c);
    }
}

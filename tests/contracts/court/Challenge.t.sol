// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Case, CaseState, Evidence, Verdict} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

contract ChallengeTest is CourtFixture {
    function testFuzz_ChallengeOfAPaidJobHoldsNothing(uint128 amount) public {
        amount = uint128(bound(amount, 1, 1000e6));
        Evidence memory evidence = _evidence(_job(1, amount));
        bytes32 caseId = _receiptHash(_job(1, amount));
        _settleOne(sessionId, 1, amount);
        vm.expectEmit(address(court));
        emit ICourt.CaseOpened(caseId, challenger, provider, true, amount, 0, EVIDENCE_HASH);
        vm.expectEmit(address(court));
        emit ICourt.SeedSet(caseId, 1, uint64(FIRST_BLOCK + 1));
        vm.prank(challenger);
        assertEq(court.challenge(evidence, EVIDENCE_HASH), caseId);

        Case memory dispute = court.caseOf(caseId);
        assertEq(uint8(dispute.state), uint8(CaseState.Drawing));
        assertEq(dispute.phaseEnds, START + DRAW);
        assertEq(dispute.round, 1);
        assertEq(dispute.held, 0);
        assertEq(dispute.evidenceHash, EVIDENCE_HASH);
        assertEq(token.balanceOf(challenger), FUNDS - BOND);
        _assertSolvent(1);
    }

    function test_ChallengeOfAClaimedJobHoldsIt() public {
        (bytes32 caseId,) = _challengeClaimed(10e6);
        assertEq(court.caseOf(caseId).held, 10e6);
        assertEq(escrow.claimOf(sessionId).pending, 0);
        assertEq(escrow.claimOf(sessionId).held, 10e6);
        _assertState(caseId, CaseState.Drawing);
        _assertSolvent(1);
    }

    function test_ChallengeOfAnAnsweredJobTakesAnotherBond() public {
        (bytes32 caseId, Evidence memory evidence) = _answered();
        vm.prank(buyer.addr);
        court.challenge(evidence, EVIDENCE_HASH);
        Case memory dispute = court.caseOf(caseId);
        assertEq(uint8(dispute.state), uint8(CaseState.Drawing));
        assertEq(dispute.held, 10e6);
        assertEq(escrow.claimOf(sessionId).held, 10e6);
        assertEq(_balance(buyer.addr), BOND);
        _assertSolvent(1);
    }

    /// @dev The demand may be the key's and the challenge the buyer's: each gets its own bond back.
    function test_ChallengeOfAnAnswerCountsForWhoeverMadeIt() public {
        _seatJurors(6);
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job, hashes);
        _fund(key.addr);
        vm.prank(key.addr);
        bytes32 caseId = court.demand(evidence);
        vm.prank(settler);
        court.answer(caseId, "garbage");
        vm.prank(buyer.addr);
        court.challenge(evidence, EVIDENCE_HASH);
        _draw(caseId);
        _vote(caseId, Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        assertEq(_balance(key.addr), BOND);
        assertEq(_balance(buyer.addr), BOND + 10e6);
        _assertSolvent(0);
    }

    /// @dev The node's friend would challenge first, show nothing, and so end the case for the node.
    function test_ChallengeOfClaimedAndAnsweredJobsIsForBuyerAndKeyOnly() public {
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job, hashes);
        bytes memory reason = abi.encodeWithSelector(ICourt.Court_NotBuyer.selector, challenger);
        vm.prank(challenger);
        vm.expectRevert(reason);
        court.challenge(evidence, EVIDENCE_HASH);
        vm.prank(buyer.addr);
        court.demand(evidence);
        vm.prank(settler);
        court.answer(hashes[0], "sealed");
        vm.prank(challenger);
        vm.expectRevert(reason);
        court.challenge(evidence, EVIDENCE_HASH);
        evidence.claimed = new bytes32[](0);
        vm.prank(challenger);
        vm.expectRevert(reason);
        court.challenge(evidence, EVIDENCE_HASH);
        _fund(key.addr);
        vm.prank(key.addr);
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ChallengeOfAPaidJobEndsWithTheDisputeTime() public {
        Evidence memory evidence = _evidence(_job(1, 10e6));
        _settleOne(sessionId, 1, 10e6);
        vm.warp(_end());
        vm.prank(challenger);
        vm.expectRevert(_error(ICourt.Court_TooLate.selector, _end(), _end()));
        court.challenge(evidence, EVIDENCE_HASH);
        vm.warp(_end() - 1);
        vm.prank(challenger);
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ChallengeOfAClaimedJobEndsWithTheClaimsWindow() public {
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job, hashes);
        vm.warp(START + CHALLENGE);
        vm.prank(buyer.addr);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NoClaim.selector, sessionId));
        court.challenge(evidence, EVIDENCE_HASH);
        vm.warp(START + CHALLENGE - 1);
        vm.prank(buyer.addr);
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ChallengeOfAClaimMadeAtTheLastSecondStillHasItsWindow() public {
        vm.warp(terms.expiresAt + GRACE - 1);
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job, hashes);
        vm.warp(_end() - 2);
        vm.prank(buyer.addr);
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ChallengeOfAnAnswerEndsWithItsWindow() public {
        (, Evidence memory evidence) = _answered();
        vm.warp(START + CHALLENGE);
        vm.prank(buyer.addr);
        vm.expectRevert(_error(ICourt.Court_TooLate.selector, START + CHALLENGE, START + CHALLENGE));
        court.challenge(evidence, EVIDENCE_HASH);
        vm.warp(START + CHALLENGE - 1);
        vm.prank(buyer.addr);
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ChallengeNeedsAJobThatWasBilled() public {
        _settleOne(sessionId, 2, 10e6);
        Evidence memory evidence = _evidence(_job(3, 10e6));
        vm.prank(challenger);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NotBilled.selector, 3, 2));
        court.challenge(evidence, EVIDENCE_HASH);
        evidence = _evidence(_job(2, 10e6));
        vm.prank(challenger);
        court.challenge(evidence, EVIDENCE_HASH);
    }

    /// @dev Leaving the list out does not make a claimed job a paid one.
    function test_ChallengeOfAPendingJobNeedsTheClaimsList() public {
        (Job memory job,) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job);
        vm.prank(buyer.addr);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NotBilled.selector, 1, 0));
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ChallengeOfAFreeJobIsRefused() public {
        Job memory job = _job(1, 0);
        Evidence memory evidence = _evidence(job);
        _settleOne(sessionId, 1, 10e6);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_FreeJob.selector, _receiptHash(job)));
        vm.prank(challenger);
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ChallengeNeedsTheNodesSignature() public {
        Job memory job = _job(1, 10e6);
        Evidence memory evidence = _evidence(job);
        evidence.signature = _sign(key, bytes32(0));
        _settleOne(sessionId, 1, 10e6);
        vm.prank(challenger);
        vm.expectPartialRevert(ICourt.Court_WrongSigner.selector);
        court.challenge(evidence, EVIDENCE_HASH);
    }

    function test_ChallengeHappensOnceForAReceipt() public {
        _seatJurors(6);
        (bytes32 caseId, Evidence memory evidence) = _challengePaid(10e6);
        _refuseAgain(caseId, evidence);
        _draw(caseId);
        _refuseAgain(caseId, evidence);
        _vote(caseId, Verdict.Clear, Verdict.Clear, Verdict.Clear);
        _refuseAgain(caseId, evidence);
    }

    /// @dev Every other way to the same receipt is closed too: no job is held, refunded or punished twice.
    function test_ChallengeAndDemandExcludeEachOther() public {
        (bytes32 caseId, Evidence memory evidence) = _challengeClaimed(10e6);
        vm.startPrank(buyer.addr);
        vm.expectRevert(_wrongState(caseId));
        court.demand(evidence);
        evidence.claimed = new bytes32[](0);
        vm.expectRevert(_wrongState(caseId));
        court.challenge(evidence, EVIDENCE_HASH);
        vm.stopPrank();
    }

    function test_ChallengeOfAJobOfAnEarlierClaimNeedsNoList() public {
        (Job memory job,) = _claimOne(10e6);
        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        Evidence memory evidence = _evidence(job);
        vm.prank(challenger);
        court.challenge(evidence, EVIDENCE_HASH);
        _assertSolvent(1);
    }

    function _answered() private returns (bytes32 caseId, Evidence memory evidence) {
        (caseId, evidence) = _demandOne(10e6);
        vm.prank(settler);
        court.answer(caseId, "sealed");
    }

    function _refuseAgain(bytes32 caseId, Evidence memory evidence) private {
        vm.prank(buyer.addr);
        vm.expectRevert(_wrongState(caseId));
        court.challenge(evidence, EVIDENCE_HASH);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {CaseState, Evidence} from "../../../contracts/types/Cases.sol";
import {Claim} from "../../../contracts/types/Claims.sol";
import {Receipt as JobReceipt} from "../../../contracts/types/Messages.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

/// @title Proofs about receipts that a pending claim bills
contract StrikeTest is CourtFixture {
    Job[] private _jobs;
    bytes32[] private _hashes;

    function setUp() public override {
        super.setUp();
        vm.prank(provider);
        registry.stake(10 * MIN_STAKE);
        (Job[] memory jobs, bytes32[] memory hashes) = _claim(_amounts(60e6, 5e6));
        (_jobs.push() = jobs[0], _jobs.push() = jobs[1]);
        _hashes = hashes;
    }

    function test_StrikeTakesOneReceiptOutOfTheClaim() public {
        _proveOvercharge();
        assertEq(registry.slashed(), MIN_STAKE + 1000e6);
        assertEq(court.proofOf(_orderHash(_jobs[0])).award, 2 * 100e6 - 60e6);
        Claim memory claim = escrow.claimOf(sessionId);
        assertEq(claim.pending, 5e6);
        assertEq(claim.held, 0);
        assertEq(registry.provider(provider).locked, 5e6);
        _assertSolvent(0);

        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        assertEq(_held(sessionId).paid, 5e6);
        assertEq(_held(sessionId).throughSeq, 2);
        assertEq(_held(sessionId).flags, 1);
        escrow.close(terms, 0, _signClose(nodeKey, sessionId, 0));
        assertEq(escrow.accountOf(buyer.addr), 995e6);
    }

    function test_StrikeOfEitherOfTwoReceiptsIsByTheFirstHandedIn() public {
        Job memory job = _jobs[1];
        (JobReceipt memory other, bytes memory signature) = _second(job, 80e6);
        Evidence memory evidence = _evidence(job, _hashes);
        court.proveTwoReceipts(evidence, other, signature);
        assertEq(escrow.claimOf(sessionId).pending, 60e6);
        assertEq(court.proofOf(_orderHash(job)).award, 2 * 100e6 - 5e6);
        _assertSolvent(0);
    }

    function test_StrikeReturnsTheMoneyOfAClosedSessionToTheAccount() public {
        vm.warp(terms.expiresAt - 1);
        escrow.finalise(terms);
        Job memory late = _job(3, 70e6);
        bytes32[] memory hashes = new bytes32[](1);
        hashes[0] = _receiptHash(late);
        vm.warp(terms.expiresAt + GRACE - 1);
        _claimAlone(late);
        vm.warp(terms.expiresAt + GRACE);
        escrow.expire(_one(terms));
        assertEq(escrow.accountOf(buyer.addr), 1000e6 - 65e6 - 70e6);
        vm.warp(_end() - 2);
        Evidence memory evidence = _evidence(late, hashes);
        court.proveOvercharge(evidence, _offer());
        assertEq(escrow.accountOf(buyer.addr), 1000e6 - 65e6);
        assertEq(_held(sessionId).flags, 3);
        _assertSolvent(0);
    }

    /// @dev Or the node would prove its own fault, for half of the award, and keep the claim.
    function test_StrikeFollowsAProofThatStruckNothing() public {
        Evidence memory evidence = _evidence(_jobs[0]);
        vm.prank(provider);
        court.proveOvercharge(evidence, _offer());
        uint128 slashed = registry.slashed();
        assertEq(escrow.claimOf(sessionId).pending, 65e6);

        _proveOvercharge();
        assertEq(registry.slashed(), slashed);
        assertEq(escrow.claimOf(sessionId).pending, 5e6);
        assertEq(court.proofOf(_orderHash(_jobs[0])).award, 200e6);
        _assertSolvent(0);
    }

    function test_StrikeHappensOnce() public {
        _proveOvercharge();
        Evidence memory evidence = _evidence(_jobs[0], _hashes);
        vm.expectRevert(_wrongState(_hashes[0]));
        court.proveOvercharge(evidence, _offer());
        vm.prank(buyer.addr);
        vm.expectRevert(_wrongState(_hashes[0]));
        court.demand(evidence);
        _assertState(_hashes[0], CaseState.Upheld);
        assertEq(escrow.claimOf(sessionId).pending, 5e6);
    }

    function test_StrikeLeavesAReceiptToTheCaseThatHoldsIt() public {
        Evidence memory evidence = _evidence(_jobs[0], _hashes);
        _fund(buyer.addr);
        vm.prank(buyer.addr);
        court.demand(evidence);
        vm.expectRevert(_wrongState(_hashes[0]));
        court.proveOvercharge(evidence, _offer());
        evidence.claimed = new bytes32[](0);
        court.proveOvercharge(evidence, _offer());
        assertEq(escrow.claimOf(sessionId).held, 60e6);
        assertEq(court.proofOf(_orderHash(_jobs[0])).award, 2 * 100e6 - 60e6);
        _assertSolvent(1);
    }

    function test_AwardIsWholeWhereTheNodeKeptTheMoney() public {
        Evidence memory evidence = _demanded();
        vm.prank(settler);
        court.answer(_hashes[0], "response");
        vm.warp(court.caseOf(_hashes[0]).phaseEnds);
        court.advance(_hashes[0]);
        assertEq(_held(sessionId).paid, 60e6);
        assertEq(court.caseOf(_hashes[0]).held, 0);
        court.proveOvercharge(evidence, _offer());
        assertEq(court.proofOf(_orderHash(_jobs[0])).award, 2 * 100e6);
    }

    function test_AwardIsWholeWhereAVoucherPaidTheJob() public {
        Evidence memory evidence = _demanded();
        _settleOne(sessionId, 2, 65e6);
        vm.warp(court.caseOf(_hashes[0]).phaseEnds);
        court.advance(_hashes[0]);
        assertEq(court.caseOf(_hashes[0]).held, 0);
        court.proveOvercharge(evidence, _offer());
        assertEq(court.proofOf(_orderHash(_jobs[0])).award, 2 * 100e6);
    }

    function test_AwardIsLessByWhatTheCaseGaveBack() public {
        Evidence memory evidence = _demanded();
        vm.warp(court.caseOf(_hashes[0]).phaseEnds);
        court.advance(_hashes[0]);
        assertEq(court.caseOf(_hashes[0]).held, 60e6);
        court.proveOvercharge(evidence, _offer());
        assertEq(court.proofOf(_orderHash(_jobs[0])).award, 2 * 100e6 - 60e6);
    }

    function test_StrikeNeedsTheClaimAndItsList() public {
        bytes32[] memory wrong = new bytes32[](1);
        wrong[0] = _hashes[0];
        Evidence memory evidence = _evidence(_jobs[0], wrong);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotClaimed.selector, _hashes[0]));
        court.proveOvercharge(evidence, _offer());

        vm.warp(START + CHALLENGE);
        evidence = _evidence(_jobs[0], _hashes);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NoClaim.selector, sessionId));
        court.proveOvercharge(evidence, _offer());
        assertEq(registry.slashed(), 0);
    }

    function test_StrikeAtTheLastSecondOfTheWindowLeavesNothingToFinalise() public {
        vm.warp(START + CHALLENGE - 1);
        _proveOvercharge();
        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        assertEq(_earnings(nodeId), 5e6);
    }

    function test_StrikeOfMoreThanTheStakeStillReturnsTheMoney() public {
        vm.prank(provider);
        registry.requestUnstake(10 * MIN_STAKE);
        vm.warp(START + CHALLENGE - 1);
        Job memory job = _job(9, 1e9);
        job.order.maxAmount = 1e9;
        _relink(job);
        Evidence memory evidence = _evidence(job);
        court.proveOvercharge(evidence, _offer());
        assertEq(_stakeOf(provider) + registry.provider(provider).unstaking, 0);
        _proveOvercharge();
        assertEq(court.proofOf(_orderHash(_jobs[0])).award, 0);
        assertEq(registry.provider(provider).locked, 5e6);
        _assertSolvent(0);
    }

    function test_StrikeOfAFreeReceiptHoldsNothing() public {
        Job memory job = _job(1, 0);
        (JobReceipt memory other, bytes memory signature) = _second(job, 7e6);
        Evidence memory evidence = _evidence(job, _hashes);
        court.proveTwoReceipts(evidence, other, signature);
        assertEq(escrow.claimOf(sessionId).pending, 65e6);
        assertEq(court.proofOf(_orderHash(job)).award, 200e6);
    }

    function _demanded() private returns (Evidence memory evidence) {
        evidence = _evidence(_jobs[0], _hashes);
        _fund(buyer.addr);
        vm.prank(buyer.addr);
        court.demand(evidence);
        evidence.claimed = new bytes32[](0);
    }

    function _proveOvercharge() private {
        Evidence memory evidence = _evidence(_jobs[0], _hashes);
        court.proveOvercharge(evidence, _offer());
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Case, CaseState, Evidence} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

contract DemandTest is CourtFixture {
    function testFuzz_DemandHoldsTheJobAndTakesTheBond(uint128 amount, uint128 rest) public {
        amount = uint128(bound(amount, 1, 100e6));
        rest = uint128(bound(rest, 1, 100e6));
        (Job[] memory jobs, bytes32[] memory hashes) = _claim(_amounts(amount, rest));
        Evidence memory evidence = _evidence(jobs[0], hashes);
        uint256 before = token.balanceOf(buyer.addr);
        vm.expectEmit(address(court));
        emit ICourt.CaseOpened(hashes[0], buyer.addr, provider, false, amount, amount, 0);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimHeld(sessionId, hashes[0], amount);
        vm.prank(buyer.addr);
        assertEq(court.demand(evidence), hashes[0]);

        assertEq(token.balanceOf(buyer.addr), before - BOND);
        assertEq(escrow.claimOf(sessionId).pending, rest);
        assertEq(escrow.claimOf(sessionId).held, amount);
        Case memory dispute = court.caseOf(hashes[0]);
        assertEq(uint8(dispute.state), uint8(CaseState.Demanded));
        assertEq(dispute.phaseEnds, START + ANSWER);
        assertEq(dispute.held, amount);
        assertEq(dispute.owner, provider);
        assertEq(dispute.buyer, buyer.addr);
        assertEq(dispute.key, key.addr);
        assertEq(dispute.sessionId, sessionId);
        assertEq(dispute.nodeId, nodeId);
        _assertSolvent(1);
    }

    function test_DemandIsForTheBuyerAndTheKeyOnly() public {
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job, hashes);
        address[4] memory others = [challenger, provider, settler, address(this)];
        for (uint256 i = 0; i < others.length; ++i) {
            vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NotBuyer.selector, others[i]));
            vm.prank(others[i]);
            court.demand(evidence);
        }
        _fund(key.addr);
        vm.prank(key.addr);
        court.demand(evidence);
        assertEq(court.caseOf(hashes[0]).challenger, key.addr);
    }

    function test_DemandNeedsABond() public {
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job, hashes);
        vm.startPrank(buyer.addr);
        token.approve(address(court), BOND - 1);
        vm.expectRevert();
        court.demand(evidence);
        token.approve(address(court), BOND);
        court.demand(evidence);
        vm.stopPrank();
    }

    function test_DemandEndsWithTheClaimsWindow() public {
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job, hashes);
        vm.warp(START + CHALLENGE);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NoClaim.selector, sessionId));
        vm.prank(buyer.addr);
        court.demand(evidence);
        vm.warp(START + CHALLENGE - 1);
        vm.prank(buyer.addr);
        court.demand(evidence);
    }

    function test_DemandNeedsAClaimAndNoVoucher() public {
        Evidence memory evidence = _evidence(_job(1, 10e6));
        _settleOne(sessionId, 1, 10e6);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NoClaim.selector, sessionId));
        vm.prank(buyer.addr);
        court.demand(evidence);
    }

    function test_DemandNeedsAReceiptOfThatClaim() public {
        (, bytes32[] memory hashes) = _claimOne(10e6);
        Job memory other = _job(1, 9e6);
        Evidence memory evidence = _evidence(other, hashes);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotClaimed.selector, _receiptHash(other)));
        vm.prank(buyer.addr);
        court.demand(evidence);
    }

    function test_DemandOfAFreeJobIsRefused() public {
        (Job[] memory jobs, bytes32[] memory hashes) = _claim(_amounts(0, 10e6));
        Evidence memory evidence = _evidence(jobs[0], hashes);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_FreeJob.selector, hashes[0]));
        vm.prank(buyer.addr);
        court.demand(evidence);
    }

    function test_DemandIsMadeOnceForAReceipt() public {
        (bytes32 caseId, Evidence memory evidence) = _demandOne(10e6);
        vm.prank(buyer.addr);
        vm.expectRevert(_wrongState(caseId));
        court.demand(evidence);
        _advanceWhenDue(caseId);
        vm.prank(buyer.addr);
        vm.expectRevert(_wrongState(caseId));
        court.demand(evidence);
    }

    function test_DemandThatNobodyAnswersReturnsJobAndBond() public {
        (bytes32 caseId,) = _demandOne(10e6);
        _advanceAt(caseId, START + ANSWER - 1);
        _assertState(caseId, CaseState.Demanded);
        vm.warp(START + ANSWER);
        vm.expectEmit(address(court));
        emit ICourt.CaseUpheld(caseId, 10e6, 0, 0);
        court.advance(caseId);
        _assertState(caseId, CaseState.Upheld);
        assertEq(_balance(buyer.addr), BOND);
        assertEq(_stakeOf(provider), MIN_STAKE);
        assertEq(_held(sessionId).flags, 1);
        assertEq(_held(sessionId).paid, 0);
        assertEq(_earnings(nodeId), 0);
        _assertSolvent(0);

        court.advance(caseId);
        assertEq(_balance(buyer.addr), BOND);
        escrow.close(terms, 0, _signClose(nodeKey, sessionId, 0));
        assertEq(escrow.accountOf(buyer.addr), 1000e6);
    }

    function test_DemandsOfTwoJobsOfOneClaimEndEachOnItsOwn() public {
        (Job[] memory jobs, bytes32[] memory hashes) = _claim(_amounts(10e6, 20e6));
        for (uint256 i = 0; i < 2; ++i) {
            Evidence memory evidence = _evidence(jobs[i], hashes);
            vm.prank(buyer.addr);
            court.demand(evidence);
        }
        assertEq(_held(sessionId).throughSeq, 2);
        vm.prank(settler);
        court.answer(hashes[0], "sealed");
        _advanceWhenDue(hashes[1]);
        _advanceWhenDue(hashes[0]);
        assertEq(_held(sessionId).paid, 10e6);
        assertEq(_held(sessionId).flags, 1);
        assertEq(_balance(buyer.addr), 2 * BOND);
        _assertSolvent(0);
    }

    /// @dev A voucher pays every order up to its own: the case goes on, and moves nothing that was held.
    function test_DemandMovesNothingOnceAVoucherHasPaid() public {
        for (uint256 end = 0; end < 2; ++end) {
            uint256 snapshot = vm.snapshotState();
            (bytes32[] memory hashes, Evidence[2] memory evidence) = _demandFirstOfTwo();
            _settleOne(sessionId, 2, 20e6);
            assertEq(escrow.claimOf(sessionId).pending, 0);
            assertEq(escrow.claimOf(sessionId).held, 0);
            assertEq(_held(sessionId).flags, 1);
            _assertSolvent(1);
            vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NoClaim.selector, sessionId));
            vm.prank(buyer.addr);
            court.demand(evidence[1]);

            if (end == 1) {
                vm.prank(provider);
                court.answer(hashes[0], "sealed");
            }
            _advanceWhenDue(hashes[0]);
            _assertState(hashes[0], end == 0 ? CaseState.Upheld : CaseState.Dismissed);
            assertEq(_balance(buyer.addr), BOND);
            assertEq(_held(sessionId).paid, 20e6);
            _assertSolvent(0);
            vm.revertToState(snapshot);
        }
    }

    /// @dev Money that a later case holds is out of reach for a case whose own a voucher has paid.
    function test_DemandOfAnEarlierClaimNeverMovesMoneyOfALaterOne() public {
        (bytes32[] memory hashes,) = _demandFirstOfTwo();
        _settleOne(sessionId, 2, 20e6);
        Job memory job = _job(3, 10e6);
        _claimAlone(job);
        bytes32[] memory later = new bytes32[](1);
        later[0] = _receiptHash(job);
        Evidence memory evidence = _evidence(job, later);
        vm.warp(START + 1);
        vm.prank(buyer.addr);
        court.demand(evidence);
        _advanceAt(hashes[0], START + ANSWER);
        _assertState(hashes[0], CaseState.Upheld);
        assertEq(escrow.claimOf(sessionId).held, 10e6);
        assertEq(registry.provider(provider).locked, 10e6);
        _assertSolvent(1);
        vm.prank(settler);
        court.answer(later[0], "sealed");
        _advanceWhenDue(later[0]);
        assertEq(_held(sessionId).paid, 30e6);
        _assertSolvent(0);
    }

    function _demandFirstOfTwo() private returns (bytes32[] memory hashes, Evidence[2] memory evidence) {
        Job[] memory jobs;
        (jobs, hashes) = _claim(_amounts(10e6, 20e6));
        evidence = [_evidence(jobs[0], hashes), _evidence(jobs[1], hashes)];
        vm.prank(buyer.addr);
        court.demand(evidence[0]);
    }
}

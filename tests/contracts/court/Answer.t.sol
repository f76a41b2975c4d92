// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {CaseState, Verdict} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

contract AnswerTest is CourtFixture {
    bytes32 private _caseId;

    function setUp() public override {
        super.setUp();
        (_caseId,) = _demandOne(10e6);
    }

    /// hardhat-config: default.fuzz.runs = 300
    function testFuzz_AnswerReturnsTheBondAndPaysAfterItsWindow(uint256 length, uint48 after_) public {
        bytes memory response = new bytes(bound(length, 1, 24 * 1024));
        uint48 at = START + uint48(bound(after_, 0, ANSWER - 1));
        vm.warp(at);
        vm.expectEmit(address(court));
        emit ICourt.Answered(_caseId, response);
        vm.prank(settler);
        court.answer(_caseId, response);
        assertEq(_balance(buyer.addr), BOND);
        assertEq(escrow.claimOf(sessionId).held, 10e6);
        _assertSolvent(0);

        _advanceAt(_caseId, at + CHALLENGE - 1);
        _assertState(_caseId, CaseState.Answered);
        vm.warp(at + CHALLENGE);
        vm.expectEmit(address(court));
        emit ICourt.CaseDismissed(_caseId);
        court.advance(_caseId);
        assertEq(_earnings(nodeId), 10e6);
        assertEq(_held(sessionId).paid, 10e6);
        assertEq(registry.provider(provider).locked, 0);
        _assertSolvent(0);

        court.advance(_caseId);
        assertEq(_earnings(nodeId), 10e6);
        assertEq(_balance(buyer.addr), BOND);
    }

    function test_AnswerIsForTheNodesOwnerAndSettlerOnly() public {
        address[4] memory others = [buyer.addr, key.addr, nodeKey.addr, stranger];
        for (uint256 i = 0; i < others.length; ++i) {
            bytes memory reason = abi.encodeWithSelector(ICourt.Court_NotNode.selector, others[i]);
            vm.startPrank(others[i]);
            vm.expectRevert(reason);
            court.answer(_caseId, "sealed");
            vm.expectRevert(reason);
            court.refer(_caseId, EVIDENCE_HASH);
            vm.stopPrank();
        }
        vm.prank(provider);
        court.answer(_caseId, "sealed");
        _assertState(_caseId, CaseState.Answered);
    }

    function test_AnswerIsForTheSettlerOfToday() public {
        vm.prank(provider);
        registry.setSettler(nodeId, stranger);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NotNode.selector, settler));
        vm.prank(settler);
        court.answer(_caseId, "sealed");
        vm.prank(stranger);
        court.answer(_caseId, "sealed");
    }

    function test_AnswerHasFrom1ByteTo24Kibibytes() public {
        vm.startPrank(settler);
        vm.expectRevert(_error(ICourt.Court_WrongLength.selector, 0, 24 * 1024));
        court.answer(_caseId, "");
        vm.expectRevert(_error(ICourt.Court_WrongLength.selector, 24 * 1024 + 1, 24 * 1024));
        court.answer(_caseId, new bytes(24 * 1024 + 1));
        vm.stopPrank();
    }

    function test_AnswerEndsWithItsWindow() public {
        bytes memory late = _error(ICourt.Court_TooLate.selector, START + ANSWER, START + ANSWER);
        vm.warp(START + ANSWER);
        vm.startPrank(settler);
        vm.expectRevert(late);
        court.answer(_caseId, "sealed");
        vm.expectRevert(late);
        court.refer(_caseId, EVIDENCE_HASH);
        vm.warp(START + ANSWER - 1);
        court.answer(_caseId, "sealed");
        vm.stopPrank();
    }

    function test_AnswerIsGivenOnce() public {
        vm.startPrank(settler);
        court.answer(_caseId, "sealed");
        vm.expectRevert(_wrongState(_caseId));
        court.answer(_caseId, "another");
        vm.expectRevert(_wrongState(_caseId));
        court.refer(_caseId, EVIDENCE_HASH);
        vm.expectRevert(_wrongState("no case"));
        court.answer("no case", "sealed");
        vm.stopPrank();
    }

    function test_ReferPutsTheDemandBeforeJurors() public {
        _seatJurors(6);
        vm.expectEmit(address(court));
        emit ICourt.Referred(_caseId, EVIDENCE_HASH);
        vm.expectEmit(address(court));
        emit ICourt.SeedSet(_caseId, 1, uint64(vm.getBlockNumber() + 1));
        vm.prank(settler);
        court.refer(_caseId, EVIDENCE_HASH);
        _assertState(_caseId, CaseState.Drawing);
        assertEq(court.caseOf(_caseId).evidenceHash, EVIDENCE_HASH);
        _assertSolvent(1);

        vm.prank(settler);
        vm.expectRevert(_wrongState(_caseId));
        court.answer(_caseId, "sealed");
    }

    /// @dev Or withholding would earn a node the bonds of those who demand.
    function test_ReferNeverEarnsTheNodeTheBond() public {
        _seatJurors(6);
        vm.prank(settler);
        court.refer(_caseId, EVIDENCE_HASH);
        _draw(_caseId);
        _vote(_caseId, Verdict.Clear, Verdict.Clear, Verdict.Guilty);
        _assertState(_caseId, CaseState.Dismissed);
        assertEq(_balance(provider), 0);
        assertEq(_balance(buyer.addr), BOND - 2 * FEE);
        assertEq(_held(sessionId).paid, 10e6);
        _assertSolvent(0);
    }

    function test_ReferThatEndsAgainstTheNodeReturnsTheBond() public {
        _seatJurors(6);
        vm.prank(settler);
        court.refer(_caseId, EVIDENCE_HASH);
        _draw(_caseId);
        _vote(_caseId, Verdict.NodeWithheld, Verdict.NodeWithheld, Verdict.NodeWithheld);
        _assertState(_caseId, CaseState.Upheld);
        assertEq(_balance(buyer.addr), BOND + 2 * 10e6 - 10e6);
        assertEq(_held(sessionId).paid, 0);
        assertEq(_stakeOf(provider), MIN_STAKE - 100e6);
        _assertSolvent(0);
    }
}

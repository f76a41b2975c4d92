// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "./../../contracts/interfaces/ICourt.sol";
import {Case, CaseState, Juror, Seat} from "./../../contracts/types/Cases.sol";
import {CourtProof} from "./support/CourtProof.sol";

/// @title Cases move on when it is time, and money of jurors stays theirs
contract JudgementProof is CourtProof {
    function check_ASilentNodesCaseReturnsTheBondAndMovesNothingElse(bytes32 caseId, address any, uint40 time)
        external
    {
        vm.warp(time);
        Case memory dispute = _soundCase(caseId, CaseState.Demanded);
        vm.assume(any != dispute.challenger);
        _assumeOneNode(dispute.owner);
        (uint256 balance, uint256 burned) = (token.balanceOf(COURT), court.burned());
        (uint256 challengers, uint256 others) = (_balance(dispute.challenger), _balance(any));
        if (!_call(address(this), abi.encodeCall(ICourt.advance, (caseId)))) return;

        bool isOver = court.caseOf(caseId).state == CaseState.Upheld;
        assertEq(_balance(dispute.challenger), challengers + (isOver ? court.rules().bond : 0));
        assertEq(_balance(any), others);
        assertEq(court.burned(), burned);
        assertEq(token.balanceOf(COURT), balance);
    }

    function check_AnUndisputedAnswerEndsToTheAtom(bytes32 caseId, uint40 time) external {
        _assertConserved(caseId, CaseState.Answered, time);
    }

    function check_AnEndedCaseNeverMovesAgain(address caller, bytes32 caseId, uint40 time) external {
        vm.warp(time);
        Case memory before = court.caseOf(caseId);
        vm.assume(uint8(before.state) >= uint8(CaseState.Upheld) || before.state == CaseState.None);
        uint256 balance = token.balanceOf(COURT);
        _call(caller, abi.encodeCall(ICourt.advance, (caseId)));
        assertEq(keccak256(abi.encode(court.caseOf(caseId))), keccak256(abi.encode(before)));
        assertEq(token.balanceOf(COURT), balance);
    }

    function check_NothingMovesBeforeItsTime(address caller, bytes32 caseId, uint40 time) external {
        vm.warp(time);
        Case memory before = court.caseOf(caseId);
        vm.assume(before.state != CaseState.Drawing && time < before.phaseEnds);
        _call(caller, abi.encodeCall(ICourt.advance, (caseId)));
        assertEq(keccak256(abi.encode(court.caseOf(caseId))), keccak256(abi.encode(before)));
    }

    /* JURORS */

    function check_WithdrawTakesFreeBalanceOfTheCallerOnly(address caller, uint64 amount, address other) external {
        vm.assume(other != caller && caller != COURT);
        (Juror memory before, Juror memory others) = (court.jurorOf(caller), court.jurorOf(other));
        (uint256 balance, uint256 wallet) = (token.balanceOf(COURT), token.balanceOf(caller));
        if (!_call(caller, abi.encodeCall(ICourt.withdraw, (amount)))) return;

        Juror memory afterwards = court.jurorOf(caller);
        assertEq(afterwards.balance, before.balance - amount);
        assertGe(afterwards.balance, afterwards.locked);
        assertEq(token.balanceOf(COURT), balance - amount);
        assertEq(token.balanceOf(caller), wallet + amount);
        assertEq(keccak256(abi.encode(court.jurorOf(other))), keccak256(abi.encode(others)));
    }

    function check_EnrolmentCreditsExactlyWhatArrived(address caller, uint64 amount) external {
        vm.assume(caller != COURT);
        Juror memory before = court.jurorOf(caller);
        uint256 balance = token.balanceOf(COURT);
        if (!_call(caller, abi.encodeCall(ICourt.enrol, (amount)))) return;

        Juror memory afterwards = court.jurorOf(caller);
        assertEq(afterwards.balance, uint256(before.balance) + amount);
        assertEq(afterwards.locked, before.locked);
        assertEq(token.balanceOf(COURT), balance + amount);
        assertEq(afterwards.weight, registry.provider(caller).staked);
        assertGt(afterwards.place, 0);
    }

    function check_ResigningMovesNoMoney(address caller, address any) external {
        _assertUnmoved(caller, any, abi.encodeCall(ICourt.resign, ()));
    }

    function check_ExpellingMovesNoMoney(address caller, address who, address any) external {
        _assertUnmoved(caller, any, abi.encodeCall(ICourt.expel, (who)));
    }

    /* THE NODE'S SIDE */

    function check_AnAnswerIsTheNodesInTimeAndReturnsTheBond(address caller, bytes32 caseId, uint40 time) external {
        vm.warp(time);
        Case memory before = court.caseOf(caseId);
        uint256 balance = _balance(before.challenger);
        if (!_call(caller, abi.encodeCall(ICourt.answer, (caseId, "response")))) return;

        (address settler,) = escrow.nodeAccount(before.nodeId);
        assertTrue(before.state == CaseState.Demanded);
        assertTrue(caller == before.owner || caller == settler);
        assertLt(time, before.phaseEnds);
        assertEq(_balance(before.challenger), balance + court.rules().bond);
        assertTrue(court.caseOf(caseId).state == CaseState.Answered);
    }

    function _assertConserved(bytes32 caseId, CaseState state, uint40 time) private {
        vm.warp(time);
        Case memory dispute = _soundCase(caseId, state);
        _assumeOneNode(dispute.owner);
        Seat[3] memory seats = court.seatsOf(caseId);
        (uint256 owed, uint256 balance) = (_owed(caseId, seats), token.balanceOf(COURT));
        if (!_call(address(this), abi.encodeCall(ICourt.advance, (caseId)))) return;

        unchecked {
            assertEq(token.balanceOf(COURT) - balance, _owed(caseId, seats) - owed);
        }
        _assertNobodyOwes(seats);
    }

    function _assertUnmoved(address caller, address any, bytes memory data) private {
        Juror memory before = court.jurorOf(any);
        _call(caller, data);

        Juror memory afterwards = court.jurorOf(any);
        assertEq(afterwards.balance, before.balance);
        assertEq(afterwards.locked, before.locked);
    }

    function _call(address caller, bytes memory data) private returns (bool ok) {
        vm.prank(caller);
        (ok,) = COURT.call(data);
    }
}

// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {Case, CaseState, Verdict} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

/// @title Commit, reveal, replace, fail
contract JuryTest is CourtFixture {
    bytes32 private _caseId;
    address[3] private _who;

    function setUp() public override {
        super.setUp();
        _seatJurors(12);
        (_caseId,) = _challengeClaimed(10e6);
        _draw(_caseId);
        _who = _seats(_caseId);
    }

    function test_CommitIsForSeatedJurorsOnce() public {
        vm.prank(stranger);
        vm.expectRevert(_noSeat(stranger));
        court.commit(_caseId, "sealed");
        vm.startPrank(_who[0]);
        vm.expectRevert(_noSeat(_who[0]));
        court.commit(_caseId, 0);
        vm.expectEmit(address(court));
        emit ICourt.Committed(_caseId, _who[0]);
        court.commit(_caseId, "sealed");
        vm.expectRevert(_noSeat(_who[0]));
        court.commit(_caseId, "another");
        vm.stopPrank();
        assertEq(court.seatsOf(_caseId)[0].commitment, bytes32("sealed"));
    }

    function test_CommitEndsWithItsWindow() public {
        vm.warp(START + COMMIT);
        vm.prank(_who[0]);
        vm.expectRevert(_error(ICourt.Court_TooLate.selector, START + COMMIT, START + COMMIT));
        court.commit(_caseId, "sealed");
        vm.warp(START + COMMIT - 1);
        vm.prank(_who[0]);
        court.commit(_caseId, "sealed");
    }

    function test_CommitOfTheLastSeatStartsTheReveal() public {
        _commitOne(_caseId, 0, Verdict.Guilty);
        _commitOne(_caseId, 1, Verdict.Guilty);
        _assertState(_caseId, CaseState.Committing);
        vm.warp(START + 10);
        _commitOne(_caseId, 2, Verdict.Guilty);
        _assertState(_caseId, CaseState.Revealing);
        assertEq(court.caseOf(_caseId).phaseEnds, START + 10 + REVEAL);
    }

    function test_CommitIsInOnlyOnePhase() public {
        vm.startPrank(_who[0]);
        vm.expectRevert(_wrongState(_caseId));
        court.reveal(_caseId, Verdict.Guilty, SALT);
        vm.stopPrank();
        _commitAll(Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        vm.prank(_who[0]);
        vm.expectRevert(_wrongState(_caseId));
        court.commit(_caseId, "sealed");
    }

    function test_CommitmentOfAnotherJurorIsUseless() public {
        bytes32 copied = court.commitmentOf(_caseId, _who[0], Verdict.Guilty, SALT);
        _commitOne(_caseId, 0, Verdict.Guilty);
        vm.prank(_who[1]);
        court.commit(_caseId, copied);
        _commitOne(_caseId, 2, Verdict.Guilty);
        _revealOne(_caseId, 0, Verdict.Guilty);
        bytes32 own = court.commitmentOf(_caseId, _who[1], Verdict.Guilty, SALT);
        vm.prank(_who[1]);
        vm.expectRevert(_verdict(own, copied));
        court.reveal(_caseId, Verdict.Guilty, SALT);
        _revealOne(_caseId, 2, Verdict.Guilty);
        _advanceWhenDue(_caseId);
        _assertState(_caseId, CaseState.Upheld);
        assertEq(_balance(_who[1]), JUROR_BALANCE - JUROR_DEPOSIT);
        _assertSolvent(0);
    }

    /// hardhat-config: default.fuzz.runs = 300
    function testFuzz_RevealTakesOnlyWhatWasCommitted(uint8 committed, uint8 opened, bytes32 salt) public {
        committed = uint8(bound(committed, 1, 4));
        opened = uint8(bound(opened, 0, 4));
        if (committed == opened) salt = salt == SALT ? bytes32(0) : salt;
        _commitAll(Verdict(committed), Verdict.Clear, Verdict.Clear);
        bytes32 got = court.commitmentOf(_caseId, _who[0], Verdict(opened), salt);
        bytes32 kept = court.seatsOf(_caseId)[0].commitment;
        vm.prank(_who[0]);
        vm.expectRevert(_verdict(got, kept));
        court.reveal(_caseId, Verdict(opened), salt);
    }

    function test_RevealOfNoVerdictIsRefusedThoughCommitted() public {
        _commitAll(Verdict.None, Verdict.Clear, Verdict.Clear);
        bytes32 kept = court.seatsOf(_caseId)[0].commitment;
        vm.prank(_who[0]);
        vm.expectRevert(_verdict(kept, kept));
        court.reveal(_caseId, Verdict.None, SALT);
    }

    function test_RevealIsForSeatedJurorsOnceInItsWindow() public {
        _commitAll(Verdict.Guilty, Verdict.Clear, Verdict.Clear);
        vm.prank(stranger);
        vm.expectRevert(_noSeat(stranger));
        court.reveal(_caseId, Verdict.Guilty, SALT);
        vm.expectEmit(address(court));
        emit ICourt.Revealed(_caseId, _who[0], Verdict.Guilty);
        _revealOne(_caseId, 0, Verdict.Guilty);
        vm.prank(_who[0]);
        vm.expectRevert(_noSeat(_who[0]));
        court.reveal(_caseId, Verdict.Guilty, SALT);
        vm.warp(START + REVEAL);
        vm.prank(_who[1]);
        vm.expectRevert(_error(ICourt.Court_TooLate.selector, START + REVEAL, START + REVEAL));
        court.reveal(_caseId, Verdict.Clear, SALT);
        vm.warp(START + REVEAL - 1);
        _revealOne(_caseId, 1, Verdict.Clear);
        _assertState(_caseId, CaseState.Revealing);
    }

    function test_SilentJurorIsReplacedOnceAndLosesItsDeposit() public {
        _commitOne(_caseId, 0, Verdict.Guilty);
        _commitOne(_caseId, 1, Verdict.Guilty);
        vm.warp(START + COMMIT);
        vm.expectEmit(address(court));
        emit ICourt.JurorReleased(_caseId, _who[2], JUROR_DEPOSIT, 0);
        court.advance(_caseId);
        Case memory dispute = court.caseOf(_caseId);
        assertEq(uint8(dispute.state), uint8(CaseState.Drawing));
        assertTrue(dispute.isRefilled);
        assertEq(dispute.round, 1);
        assertEq(dispute.tries, 0);
        assertEq(_balance(_who[2]), JUROR_BALANCE - JUROR_DEPOSIT);
        assertEq(court.jurorOf(_who[2]).locked, 0);
        assertEq(court.burned(), JUROR_DEPOSIT);
        _assertSolvent(1);

        _draw(_caseId);
        address[3] memory now_ = _seats(_caseId);
        assertEq(now_[0], _who[0]);
        assertEq(now_[1], _who[1]);
        assertTrue(now_[2] != _who[2] && now_[2] != address(0));
        // The new one keeps silent too: the two that committed decide.
        _advanceWhenDue(_caseId);
        _assertState(_caseId, CaseState.Revealing);
        assertEq(court.burned(), 2 * JUROR_DEPOSIT);
        _revealOne(_caseId, 0, Verdict.Guilty);
        _revealOne(_caseId, 1, Verdict.Guilty);
        _assertState(_caseId, CaseState.Upheld);
        assertEq(_balance(_who[0]), JUROR_BALANCE + FEE);
        _assertSolvent(0);
    }

    function test_SilentJurorIsNeverSeatedAgain() public {
        _advanceWhenDue(_caseId);
        for (uint256 i = 0; i < 3; ++i) {
            _draw(_caseId);
            address[3] memory who = _seats(_caseId);
            for (uint256 j = 0; j < 3; ++j) {
                assertTrue(who[j] != _who[0] && who[j] != _who[1] && who[j] != _who[2]);
            }
            _advanceWhenDue(_caseId);
        }
        assertEq(uint8(_state(_caseId)), uint8(CaseState.Void));
        assertEq(court.burned(), 12 * JUROR_DEPOSIT);
        _assertSolvent(0);
    }

    /// @dev Jurors who were drawn while the case waited for others lose nothing.
    function test_JurorsWhoseRoundFailsForWantOfOthersLoseNothing() public {
        for (uint256 i = 0; i < jurors.length; ++i) {
            if (!_isSeated(jurors[i]) && court.jurorCount() > 4) {
                vm.prank(jurors[i]);
                court.resign();
            }
        }
        _commitOne(_caseId, 0, Verdict.Guilty);
        vm.roll(vm.getBlockNumber() + 1);
        _advanceWhenDue(_caseId);
        _draw(_caseId);
        _assertState(_caseId, CaseState.Void);
        assertEq(_balance(_who[0]), JUROR_BALANCE);
        assertEq(court.jurorOf(_who[0]).locked, 0);
        assertEq(court.burned(), 2 * JUROR_DEPOSIT);
        assertEq(_balance(buyer.addr), BOND);
        _assertSolvent(0);
    }

    function test_SilentJurorWhomNobodyCanReplaceLetsTwoDecide() public {
        for (uint256 i = 0; i < jurors.length; ++i) {
            vm.prank(jurors[i]);
            court.resign();
        }
        _commitOne(_caseId, 0, Verdict.Clear);
        _commitOne(_caseId, 2, Verdict.Clear);
        _advanceWhenDue(_caseId);
        _draw(_caseId);
        _assertState(_caseId, CaseState.Revealing);
        assertEq(_seats(_caseId)[1], address(0));
        _revealOne(_caseId, 0, Verdict.Clear);
        _revealOne(_caseId, 2, Verdict.Clear);
        _assertState(_caseId, CaseState.Dismissed);
        assertEq(_balance(provider), BOND - 2 * FEE);
        _assertSolvent(0);
    }

    function test_RoundWithoutAMajorityIsTriedOnceMore() public {
        _commitAll(Verdict.Guilty, Verdict.Clear, Verdict.Guilty);
        _revealOne(_caseId, 0, Verdict.Guilty);
        _revealOne(_caseId, 1, Verdict.Clear);
        _advanceWhenDue(_caseId);
        Case memory dispute = court.caseOf(_caseId);
        assertEq(uint8(dispute.state), uint8(CaseState.Drawing));
        assertEq(dispute.round, 2);
        assertFalse(dispute.isRefilled);
        assertEq(_balance(_who[0]), JUROR_BALANCE);
        assertEq(_balance(_who[2]), JUROR_BALANCE - JUROR_DEPOSIT);
        assertEq(court.burned(), JUROR_DEPOSIT);
        _assertSolvent(1);

        _draw(_caseId);
        _vote(_caseId, Verdict.Guilty, Verdict.NodeWithheld, Verdict.Clear);
        _assertState(_caseId, CaseState.Upheld);
        _assertSolvent(0);
    }

    function test_RoundsThatFailTwiceReturnJobAndBond() public {
        for (uint256 i = 0; i < 2; ++i) {
            _draw(_caseId);
            _commitAll(Verdict.Guilty, Verdict.Clear, Verdict.Guilty);
            _revealOne(_caseId, 0, Verdict.Guilty);
            _revealOne(_caseId, 1, Verdict.Clear);
            if (i == 1) {
                vm.expectEmit(address(court));
                emit ICourt.CaseVoid(_caseId);
            }
            _advanceWhenDue(_caseId);
        }
        _assertState(_caseId, CaseState.Void);
        assertEq(_balance(buyer.addr), BOND);
        assertEq(_held(sessionId).paid, 0);
        assertEq(registry.slashed(), 0);
        assertEq(court.burned(), 2 * JUROR_DEPOSIT);
        _assertSolvent(0);
    }

    /// @dev A commitment of the first round opens nothing in the second.
    function test_CommitmentIsOfItsRound() public {
        bytes32 first = court.commitmentOf(_caseId, _who[0], Verdict.Guilty, SALT);
        assertEq(first, keccak256(abi.encode(_caseId, uint8(1), _who[0], Verdict.Guilty, SALT)));
        _commitAll(Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        _advanceWhenDue(_caseId);
        assertEq(court.caseOf(_caseId).round, 2);
        assertTrue(court.commitmentOf(_caseId, _who[0], Verdict.Guilty, SALT) != first);
    }

    function test_AdvanceDoesNothingBeforeTheEndOfEveryPhase() public {
        _noop(START + COMMIT - 1);
        _commitAll(Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        _noop(court.caseOf(_caseId).phaseEnds - 1);
        _revealOne(_caseId, 0, Verdict.Guilty);
        _noop(court.caseOf(_caseId).phaseEnds - 1);
        _advanceWhenDue(_caseId);
        _assertState(_caseId, CaseState.Drawing);
        assertEq(court.caseOf(_caseId).round, 2);
        court.advance("no case");
        assertEq(uint8(_state("no case")), uint8(CaseState.None));
    }

    function _noop(uint256 time) private {
        vm.warp(time);
        bytes32 before = keccak256(abi.encode(court.caseOf(_caseId), court.seatsOf(_caseId)));
        court.advance(_caseId);
        assertEq(keccak256(abi.encode(court.caseOf(_caseId), court.seatsOf(_caseId))), before);
    }

    function _commitAll(Verdict a, Verdict b, Verdict c) private {
        _commitOne(_caseId, 0, a);
        _commitOne(_caseId, 1, b);
        _commitOne(_caseId, 2, c);
    }

    function _isSeated(address who) private view returns (bool) {
        return who == _who[0] || who == _who[1] || who == _who[2];
    }

    function _noSeat(address who) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICourt.Court_NoSeat.selector, who);
    }

    function _verdict(bytes32 got, bytes32 limit) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICourt.Court_WrongVerdict.selector, got, limit);
    }
}

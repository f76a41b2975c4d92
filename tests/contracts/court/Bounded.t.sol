// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Case, CaseState, Evidence, Seat, Verdict} from "../../../contracts/types/Cases.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

/// @title Whatever everybody does or leaves undone, a case ends in time and every atom is somebody's
contract BoundedTest is CourtFixture {
    uint256 private constant _MOST_STEPS = 40;

    uint256 private _random;
    uint256 private _mood;
    bytes32 private _caseId;
    Evidence private _job1;

    function setUp() public override {
        super.setUp();
        _fund(key.addr);
    }

    /// hardhat-config: default.fuzz.runs = 2000
    function testFuzz_CaseEndsInTimeAndToTheAtom(uint256 random) public {
        (_random, _mood) = (random, random);
        _seatJurors(_pick(4) * 4 + 1);
        _open();
        uint256 steps = 0;
        while (!_isEnded() && steps < _MOST_STEPS) {
            _disturb();
            if (!_isEnded()) _step();
            _assertSolvent(_openBonds());
            ++steps;
        }
        assertTrue(_isEnded());
        assertLe(vm.getBlockTimestamp(), terms.expiresAt + GRACE + court.LONGEST_SECONDS());
        assertEq(escrow.claimOf(sessionId).held, 0);
        for (uint256 i = 0; i < jurors.length; ++i) {
            assertEq(court.jurorOf(jurors[i]).locked, 0);
        }
        _leave();
    }

    /// @dev Everybody acts at the last second or not at all, and no majority is ever found.
    function test_CaseCanTakeNoLongerThanTheCourtSays() public {
        _seatJurors(12);
        uint256 graceEnd = terms.expiresAt + GRACE;
        vm.warp(graceEnd - 1);
        (Job memory job, bytes32[] memory hashes) = _claimOne(10e6);
        Evidence memory evidence = _evidence(job, hashes);
        vm.warp(graceEnd + CHALLENGE - 2);
        vm.prank(buyer.addr);
        _caseId = court.demand(evidence);
        _lastSecond();
        vm.prank(settler);
        court.answer(_caseId, "sealed");
        _lastSecond();
        vm.prank(buyer.addr);
        court.challenge(evidence, EVIDENCE_HASH);
        for (uint256 round = 1; round <= 2; ++round) {
            assertEq(court.caseOf(_caseId).round, round);
            _lastSecond();
            _draw(_caseId);
            _commitOne(_caseId, 0, Verdict.Guilty);
            _commitOne(_caseId, 1, Verdict.Clear);
            _advanceWhenDue(_caseId);
            _lastSecond();
            _draw(_caseId);
            _advanceWhenDue(_caseId);
            _assertState(_caseId, CaseState.Revealing);
            _advanceWhenDue(_caseId);
        }
        _assertState(_caseId, CaseState.Void);
        uint256 took = vm.getBlockTimestamp() - graceEnd;
        assertLe(took, court.LONGEST_SECONDS());
        assertGe(took, court.LONGEST_SECONDS() - 8);
        _assertSolvent(0);
    }

    /// @dev Called at both sides of every window's end, by anybody, a case goes the same way as without the calls.
    function test_CaseMovesOnlyAtTheEndsOfItsWindows() public {
        _seatJurors(12);
        (_caseId,) = _demandOne(10e6);
        _quiet(CaseState.Demanded);
        vm.prank(settler);
        court.refer(_caseId, EVIDENCE_HASH);
        _quiet(CaseState.Drawing);
        _draw(_caseId);
        _quiet(CaseState.Committing);
        _commitOne(_caseId, 0, Verdict.Clear);
        _quiet(CaseState.Committing);
        _advanceWhenDue(_caseId);
        court.advance(_caseId);
        _assertState(_caseId, CaseState.Drawing);
        _draw(_caseId);
        _commitOne(_caseId, 1, Verdict.Clear);
        _quiet(CaseState.Committing);
        _advanceWhenDue(_caseId);
        court.advance(_caseId);
        _quiet(CaseState.Revealing);
        _revealOne(_caseId, 0, Verdict.Clear);
        _quiet(CaseState.Revealing);
        _revealOne(_caseId, 1, Verdict.Clear);
        _assertState(_caseId, CaseState.Dismissed);
        _assertSolvent(0);
    }

    /* STEPS */

    function _open() private {
        bool isLate = _pick(2) == 0;
        uint256 lane = _pick(3);
        if (isLate) vm.warp(terms.expiresAt + GRACE - 1);
        Job memory job = _job(1, uint128(1 + _pick(50e6)));
        if (lane == 0) _settleOne(sessionId, 1, job.receipt.amount);
        else _claimAlone(job);
        bytes32[] memory hashes = new bytes32[](lane == 0 ? 0 : 1);
        if (lane > 0) hashes[0] = _receiptHash(job);
        _job1 = _evidence(job, hashes);
        vm.warp(vm.getBlockTimestamp() + (isLate ? CHALLENGE - 1 : _pick(CHALLENGE)));
        vm.prank(buyer.addr);
        if (lane == 2) _caseId = court.demand(_job1);
        else _caseId = court.challenge(_job1, EVIDENCE_HASH);
    }

    function _step() private {
        CaseState state = _state(_caseId);
        if (state == CaseState.Demanded) _answerOrNot();
        else if (state == CaseState.Answered) _challengeOrNot();
        else if (state == CaseState.Drawing) _drawOrNot();
        else if (state == CaseState.Committing) _commitOrNot();
        else _revealOrNot();
    }

    function _answerOrNot() private {
        uint256 choice = _pick(3);
        if (choice == 0) return _advanceWhenDue(_caseId);
        _wait();
        vm.prank(settler);
        if (choice == 1) court.answer(_caseId, "sealed");
        else court.refer(_caseId, EVIDENCE_HASH);
    }

    function _challengeOrNot() private {
        if (_pick(3) == 0) return _advanceWhenDue(_caseId);
        _wait();
        vm.prank(_pick(2) == 0 ? key.addr : buyer.addr);
        court.challenge(_job1, EVIDENCE_HASH);
    }

    function _drawOrNot() private {
        if (_pick(5) == 0) return _advanceWhenDue(_caseId);
        _wait();
        _draw(_caseId);
    }

    function _commitOrNot() private {
        Seat[3] memory seats = court.seatsOf(_caseId);
        for (uint256 i = 0; i < 3 && _state(_caseId) == CaseState.Committing; ++i) {
            if (seats[i].commitment != 0 || _pick(4) == 0) continue;
            _wait();
            _commitOne(_caseId, i, _verdictOf(seats[i].juror));
        }
        if (_state(_caseId) == CaseState.Committing) _advanceWhenDue(_caseId);
    }

    function _revealOrNot() private {
        Seat[3] memory seats = court.seatsOf(_caseId);
        for (uint256 i = 0; i < 3 && _state(_caseId) == CaseState.Revealing; ++i) {
            if (seats[i].commitment == 0 || _pick(4) == 0) continue;
            _wait();
            _revealOne(_caseId, i, _verdictOf(seats[i].juror));
        }
        if (_state(_caseId) == CaseState.Revealing) _advanceWhenDue(_caseId);
    }

    /// @dev What others may do in between; most of it is refused, none of it may stop the case.
    function _disturb() private {
        uint256 choice = _pick(8);
        if (choice == 0) _try(address(escrow), abi.encodeCall(IEscrow.finalise, (terms)));
        if (choice == 1) _try(address(escrow), abi.encodeCall(IEscrow.expire, (_one(terms))));
        if (choice == 2) _try(address(court), abi.encodeCall(ICourt.advance, (_caseId)));
        if (choice == 3) {
            vm.prank(jurors[_pick(jurors.length)]);
            _try(address(court), abi.encodeCall(ICourt.resign, ()));
        }
        if (choice == 4) {
            vm.prank(jurors[_pick(jurors.length)]);
            _try(address(court), abi.encodeCall(ICourt.withdraw, (JUROR_BALANCE - JUROR_DEPOSIT)));
        }
        if (choice == 6) {
            SettleItem[] memory items = new SettleItem[](1);
            items[0] = _item(key, sessionId, 1, uint128(_pick(60e6)));
            vm.prank(settler);
            _try(address(escrow), abi.encodeCall(IEscrow.settle, (items)));
        }
        if (choice == 5) _try(address(court), abi.encodeCall(ICourt.proveOvercharge, (_job1, _offer())));
    }

    /// @dev Everybody takes out what is theirs; what stays behind is burned.
    function _leave() private {
        for (uint256 i = 0; i < jurors.length; ++i) {
            _takeOut(jurors[i]);
        }
        _takeOut(buyer.addr);
        _takeOut(key.addr);
        _takeOut(provider);
        assertEq(token.balanceOf(address(court)), court.burned());
    }

    function _takeOut(address who) private {
        uint64 balance = _balance(who);
        if (balance == 0) return;
        vm.prank(who);
        court.withdraw(balance);
    }

    /* HELPERS */

    function _quiet(CaseState state) private {
        bytes32 before = keccak256(abi.encode(court.caseOf(_caseId), court.seatsOf(_caseId)));
        court.advance(_caseId);
        _lastSecond();
        if (state != CaseState.Drawing) court.advance(_caseId);
        assertEq(keccak256(abi.encode(court.caseOf(_caseId), court.seatsOf(_caseId))), before);
        _assertState(_caseId, state);
    }

    function _lastSecond() private {
        vm.warp(court.caseOf(_caseId).phaseEnds - 1);
    }

    /// @dev Some time inside the window, often its last second.
    function _wait() private {
        uint256 left = court.caseOf(_caseId).phaseEnds - vm.getBlockTimestamp() - 1;
        vm.warp(vm.getBlockTimestamp() + (_pick(2) == 0 ? left : _pick(left + 1)));
    }

    function _try(address target, bytes memory data) private {
        (bool ok,) = target.call(data);
        _random = uint256(keccak256(abi.encode(_random, ok)));
    }

    function _pick(uint256 count) private returns (uint256) {
        _random = uint256(keccak256(abi.encode(_random)));
        return _random % count;
    }

    function _isEnded() private view returns (bool) {
        return _state(_caseId) >= CaseState.Upheld;
    }

    function _openBonds() private view returns (uint256) {
        Case memory dispute = court.caseOf(_caseId);
        return dispute.state == CaseState.Answered || dispute.state >= CaseState.Upheld ? 0 : 1;
    }

    function _verdictOf(address juror) private view returns (Verdict) {
        return Verdict(1 + uint256(keccak256(abi.encode(juror, _mood))) % 4);
    }
}

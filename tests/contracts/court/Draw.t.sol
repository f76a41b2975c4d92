// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {CaseState, Evidence, Juror, Seat} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

contract DrawTest is CourtFixture {
    uint256 private constant _TRIES_A_CALL = 64;
    uint256 private constant _CALLS = 8;

    function test_DrawWaitsForItsSeed() public {
        _seatJurors(6);
        (bytes32 caseId,) = _challengePaid(10e6);
        bytes32 before = keccak256(abi.encode(court.caseOf(caseId)));
        uint256 seedBlock = court.caseOf(caseId).seedBlock;
        assertEq(seedBlock, vm.getBlockNumber() + 1);
        court.advance(caseId);
        vm.roll(seedBlock);
        court.advance(caseId);
        assertEq(keccak256(abi.encode(court.caseOf(caseId))), before);
        vm.roll(seedBlock + 1);
        court.advance(caseId);
        _assertState(caseId, CaseState.Committing);
        assertEq(court.caseOf(caseId).phaseEnds, START + COMMIT);
    }

    function test_DrawSeatsThreeAndLocksTheirDeposits() public {
        _seatJurors(6);
        (bytes32 caseId,) = _challengePaid(10e6);
        _draw(caseId);
        address[3] memory who = _seats(caseId);
        assertTrue(who[0] != who[1] && who[1] != who[2] && who[0] != who[2]);
        for (uint256 i = 0; i < 3; ++i) {
            assertEq(court.jurorOf(who[i]).locked, JUROR_DEPOSIT);
            assertEq(_balance(who[i]), JUROR_BALANCE);
        }
        _assertSolvent(1);
    }

    function test_DrawTellsWhoSitsInWhichCase() public {
        _seatJurors(6);
        (bytes32 caseId,) = _challengePaid(10e6);
        vm.recordLogs();
        _draw(caseId);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        address[3] memory who = _seats(caseId);
        uint256 seat = 0;
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].topics[0] != ICourt.JurorSeated.selector) continue;
            assertEq(logs[i].topics[1], caseId);
            assertEq(address(uint160(uint256(logs[i].topics[2]))), who[seat]);
            assertEq(abi.decode(logs[i].data, (uint256)), seat);
            ++seat;
        }
        assertEq(seat, 3);
    }

    function test_DrawTakesASeedOfThe256thBlockBack() public {
        _seatJurors(6);
        (bytes32 caseId,) = _challengePaid(10e6);
        vm.roll(court.caseOf(caseId).seedBlock + 256);
        court.advance(caseId);
        _assertState(caseId, CaseState.Committing);
    }

    function test_DrawRenewsASeedThatIsTooOld() public {
        _seatJurors(6);
        (bytes32 caseId,) = _challengePaid(10e6);
        uint256 late = court.caseOf(caseId).seedBlock + 257;
        vm.roll(late);
        vm.expectEmit(address(court));
        emit ICourt.SeedSet(caseId, 1, uint64(late + 1));
        court.advance(caseId);
        _assertState(caseId, CaseState.Drawing);
        assertEq(court.caseOf(caseId).seedBlock, late + 1);
        assertEq(court.caseOf(caseId).phaseEnds, START + DRAW);
        assertEq(_seats(caseId)[0], address(0));
        _draw(caseId);
        _assertState(caseId, CaseState.Committing);
    }

    function test_DrawEndsAtItsLastSecond() public {
        _seatJurors(6);
        (bytes32 caseId,) = _challengePaid(10e6);
        vm.roll(court.caseOf(caseId).seedBlock + 1);
        uint256 snapshot = vm.snapshotState();
        _advanceAt(caseId, START + DRAW - 1);
        _assertState(caseId, CaseState.Committing);
        vm.revertToState(snapshot);
        _advanceAt(caseId, START + DRAW);
        _assertState(caseId, CaseState.Drawing);
        assertEq(court.caseOf(caseId).round, 2);
        _advanceAt(caseId, START + 2 * DRAW);
        _assertState(caseId, CaseState.Void);
        assertEq(_balance(challenger), BOND);
        _assertSolvent(0);
    }

    /// @dev Whoever takes part, stakes and enrols all the same.
    function test_DrawNeverSeatsAParty() public {
        address[4] memory parties = [provider, buyer.addr, key.addr, challenger];
        _fund(key.addr);
        for (uint256 i = 0; i < 4; ++i) {
            vm.startPrank(parties[i]);
            if (i > 0) registry.register("");
            registry.stake(8 * MIN_STAKE);
            court.enrol(JUROR_BALANCE);
            vm.stopPrank();
        }
        _seatJurors(3);
        Evidence memory evidence = _evidence(_job(1, 10e6));
        _settleOne(sessionId, 1, 10e6);
        for (uint256 i = 0; i < 40; ++i) {
            uint256 snapshot = vm.snapshotState();
            vm.roll(FIRST_BLOCK + 7 * i);
            vm.prank(challenger);
            bytes32 caseId = court.challenge(evidence, EVIDENCE_HASH);
            _draw(caseId);
            _assertState(caseId, CaseState.Committing);
            address[3] memory who = _seats(caseId);
            for (uint256 j = 0; j < 3; ++j) {
                assertTrue(who[j] == jurors[0] || who[j] == jurors[1] || who[j] == jurors[2]);
            }
            vm.revertToState(snapshot);
        }
    }

    /// @dev Four jurors with stakes of 8, 4, 2 and 1; who has the first seat in 3,000 draws. Expected are 1600, 800,
    /// 400 and 200 times; bounds are five standard deviations, which chance leaves once in a million times.
    function test_DrawIsInProportionToStake() public {
        for (uint256 i = 0; i < 4; ++i) {
            jurors.push(makeAddr(string.concat("juror ", vm.toString(i))));
            _enrolNew(jurors[i], uint128(uint256(MIN_STAKE) << (3 - i)));
        }
        uint256[4] memory count = _firstSeats(3000);
        assertApproxEqAbs(count[0], 1600, 137);
        assertApproxEqAbs(count[1], 800, 121);
        assertApproxEqAbs(count[2], 400, 94);
        assertApproxEqAbs(count[3], 200, 69);
    }

    /// @dev 24 times the full weight is worth no more than it: a half each, within five standard deviations.
    function test_DrawCountsNoStakeAboveTheFullWeight() public {
        for (uint256 i = 0; i < 3; ++i) {
            jurors.push(makeAddr(string.concat("juror ", vm.toString(i))));
            _enrolNew(jurors[i], i == 0 ? 24 * 8 * MIN_STAKE : 8 * MIN_STAKE);
        }
        uint256[4] memory count = _firstSeats(900);
        assertApproxEqAbs(count[0], 300, 71);
    }

    /// @dev The seed is known and nobody has drawn yet: whoever may come, leave, raise stake or push others, the seats
    /// are those that the seed gave; only whoever left or enrolled anew is passed over.
    /// hardhat-config: default.fuzz.runs = 300
    function testFuzz_DrawCannotBeSteeredOnceTheSeedIsKnown(uint256 random, uint256 leaver) public {
        (address small, address riser) = (makeAddr("small"), makeAddr("riser"));
        _enrolNew(small, MIN_STAKE);
        _enrolNew(riser, MIN_STAKE);
        _seatJurors(9);
        vm.roll(FIRST_BLOCK + (random % 1000) + 1);
        (bytes32 caseId,) = _challengePaid(10e6);
        vm.roll(court.caseOf(caseId).seedBlock + 1);
        uint256 snapshot = vm.snapshotState();
        court.advance(caseId);
        address[3] memory fair = _seats(caseId);
        vm.revertToState(snapshot);

        address gone = jurors[leaver % 9];
        vm.prank(gone);
        court.resign();
        vm.prank(gone);
        court.enrol(0);
        vm.startPrank(small);
        registry.stake(7 * MIN_STAKE);
        court.enrol(0);
        vm.stopPrank();
        vm.prank(riser);
        registry.stake(7 * MIN_STAKE);
        for (uint256 i = 0; i < 3; ++i) {
            _enrolNew(makeAddr(string.concat("late ", vm.toString(i))), 8 * MIN_STAKE);
        }
        court.advance(caseId);
        address[3] memory got = _seats(caseId);
        uint256 at = 0;
        for (uint256 i = 0; i < 3; ++i) {
            if (fair[i] == gone || fair[i] == small) continue;
            assertEq(got[at], fair[i]);
            ++at;
        }
        for (uint256 i = 0; i < 3; ++i) {
            assertTrue(got[i] != gone && got[i] != small);
        }
        _assertState(caseId, CaseState.Committing);
    }

    /// @dev Stake that comes when the seed is known raises nobody's chance, nor does stake that was there once.
    function test_DrawTakesTheWeightFromTheLastEnrolment() public {
        _seatJurors(3);
        address small = makeAddr("small");
        _enrolNew(small, MIN_STAKE);
        Juror memory juror = court.jurorOf(small);
        assertEq(juror.weight, MIN_STAKE);
        assertEq(juror.since, FIRST_BLOCK + 1);
        vm.prank(small);
        registry.stake(7 * MIN_STAKE);
        assertEq(court.jurorOf(small).weight, MIN_STAKE);
        vm.roll(FIRST_BLOCK + 50);
        vm.startPrank(small);
        court.enrol(0);
        assertEq(court.jurorOf(small).weight, 8 * MIN_STAKE);
        assertEq(court.jurorOf(small).since, FIRST_BLOCK + 50);
        registry.requestUnstake(1);
        vm.stopPrank();
        court.expel(small);
        assertEq(court.jurorCount(), 3);
    }

    function test_DrawPassesOverJurorsWithoutAFreeDepositOrTheirStake() public {
        _seatJurors(6);
        vm.prank(jurors[0]);
        court.withdraw(JUROR_BALANCE - JUROR_DEPOSIT + 1);
        vm.prank(jurors[1]);
        registry.requestUnstake(1);
        vm.prank(jurors[2]);
        court.resign();
        (bytes32 caseId,) = _challengePaid(10e6);
        _draw(caseId);
        _assertState(caseId, CaseState.Committing);
        address[3] memory who = _seats(caseId);
        for (uint256 i = 0; i < 3; ++i) {
            assertTrue(who[i] != jurors[0] && who[i] != jurors[1] && who[i] != jurors[2]);
        }
    }

    function test_DrawFromAnEmptyPoolEndsAtOnce() public {
        (bytes32 caseId,) = _challengeClaimed(10e6);
        vm.roll(court.caseOf(caseId).seedBlock + 1);
        vm.expectEmit(address(court));
        emit ICourt.CaseVoid(caseId);
        court.advance(caseId);
        _assertState(caseId, CaseState.Void);
        assertEq(_balance(buyer.addr), BOND);
        assertEq(_held(sessionId).paid, 0);
        assertEq(_held(sessionId).flags, 1);
        _assertSolvent(0);
    }

    function test_DrawFromTooSmallAPoolEndsAfterBoundedTries() public {
        _seatJurors(2);
        (bytes32 caseId,) = _challengeClaimed(10e6);
        vm.roll(court.caseOf(caseId).seedBlock + 1);
        for (uint256 i = 1; i < _CALLS; ++i) {
            court.advance(caseId);
            _assertState(caseId, CaseState.Drawing);
            assertEq(court.caseOf(caseId).tries, i * _TRIES_A_CALL);
        }
        assertEq(court.jurorOf(jurors[0]).locked, JUROR_DEPOSIT);
        court.advance(caseId);
        _assertState(caseId, CaseState.Void);
        assertEq(court.jurorOf(jurors[0]).locked, 0);
        assertEq(_balance(jurors[0]), JUROR_BALANCE);
        assertEq(_balance(buyer.addr), BOND);
        assertEq(registry.slashed(), 0);
        _assertSolvent(0);
    }

    /// @dev One try in 33 hits the last of three; 512 of them miss it once in seven million draws.
    function test_DrawFindsThreeAmongThirtyWithoutADeposit() public {
        _seatJurors(33);
        for (uint256 i = 3; i < 33; ++i) {
            vm.prank(jurors[i]);
            court.withdraw(JUROR_BALANCE);
        }
        (bytes32 caseId,) = _challengePaid(10e6);
        _draw(caseId);
        _assertState(caseId, CaseState.Committing);
    }

    function test_DrawFromAPollutedPoolIsCleanedByAnybody() public {
        _seatJurors(33);
        for (uint256 i = 3; i < 33; ++i) {
            vm.prank(jurors[i]);
            court.withdraw(JUROR_BALANCE);
            vm.prank(stranger);
            court.expel(jurors[i]);
        }
        assertEq(court.jurorCount(), 3);
        (bytes32 caseId,) = _challengePaid(10e6);
        vm.roll(court.caseOf(caseId).seedBlock + 1);
        court.advance(caseId);
        _assertState(caseId, CaseState.Committing);
        assertLt(court.caseOf(caseId).tries, _TRIES_A_CALL);
    }

    function _firstSeats(uint256 draws) private returns (uint256[4] memory count) {
        Evidence memory evidence = _evidence(_job(1, 10e6));
        _settleOne(sessionId, 1, 10e6);
        uint256 snapshot = vm.snapshotState();
        for (uint256 i = 0; i < draws; ++i) {
            vm.roll(FIRST_BLOCK + 10 + 3 * i);
            vm.prank(challenger);
            bytes32 caseId = court.challenge(evidence, EVIDENCE_HASH);
            vm.roll(FIRST_BLOCK + 12 + 3 * i);
            court.advance(caseId);
            Seat[3] memory seats = court.seatsOf(caseId);
            for (uint256 j = 0; j < jurors.length; ++j) {
                if (seats[0].juror == jurors[j]) ++count[j];
            }
            vm.revertToState(snapshot);
        }
        assertEq(count[0] + count[1] + count[2] + count[3], draws, "every draw seats somebody");
    }
}

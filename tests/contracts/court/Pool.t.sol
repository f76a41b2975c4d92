// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {Juror, Verdict} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

contract PoolTest is CourtFixture {
    address private _juror = makeAddr("a juror");

    function testFuzz_EnrolPutsMoneyIn(uint64 amount) public {
        amount = uint64(bound(amount, 0, FUNDS - MIN_STAKE));
        _stake(_juror, MIN_STAKE);
        vm.expectEmit(address(court));
        emit ICourt.Enrolled(_juror, amount);
        vm.prank(_juror);
        court.enrol(amount);
        Juror memory got = court.jurorOf(_juror);
        assertEq(got.balance, amount);
        assertEq(got.locked, 0);
        assertEq(got.place, 1);
        assertEq(got.weight, MIN_STAKE);
        assertEq(got.since, FIRST_BLOCK);
        assertEq(court.jurorCount(), 1);
        assertEq(token.balanceOf(address(court)), amount);
    }

    function test_EnrolAgainAddsAndKeepsThePlace() public {
        _enrolNew(_juror, MIN_STAKE);
        _seatJurors(2);
        vm.startPrank(_juror);
        court.enrol(5e6);
        court.enrol(0);
        vm.stopPrank();
        assertEq(court.jurorOf(_juror).balance, JUROR_BALANCE + 5e6);
        assertEq(court.jurorOf(_juror).place, 1);
        assertEq(court.jurorCount(), 3);
    }

    function testFuzz_EnrolNeedsTheMinimumStakeOutsideTheDelay(uint128 out) public {
        out = uint128(bound(out, 1, MIN_STAKE));
        bytes memory reason = abi.encodeWithSelector(ICourt.Court_NotStaked.selector, _juror);
        vm.prank(_juror);
        vm.expectRevert(reason);
        court.enrol(0);
        _stake(_juror, MIN_STAKE);
        vm.startPrank(_juror);
        registry.requestUnstake(out);
        vm.expectRevert(reason);
        court.enrol(0);
        registry.stake(out);
        court.enrol(0);
        vm.stopPrank();
    }

    /// @dev Places 1 to n always hold the n jurors, whoever left.
    /// hardhat-config: default.fuzz.runs = 300
    function testFuzz_ResignLeavesEveryOtherInThePool(uint256 random) public {
        _seatJurors(6);
        for (uint256 i = 0; i < 12; ++i) {
            random = uint256(keccak256(abi.encode(random)));
            address who = jurors[random % 6];
            vm.roll(vm.getBlockNumber() + ((random >> 8) % 2));
            bool isIn = court.jurorOf(who).place > 0;
            vm.prank(who);
            if (isIn) court.resign();
            else court.enrol(0);
            _assertPlaces();
        }
    }

    function test_ResignIsForJurorsInThePool() public {
        vm.prank(_juror);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NoSeat.selector, _juror));
        court.resign();
        _enrolNew(_juror, MIN_STAKE);
        vm.startPrank(_juror);
        vm.expectEmit(address(court));
        emit ICourt.Resigned(_juror);
        court.resign();
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NoSeat.selector, _juror));
        court.resign();
        vm.stopPrank();
        assertEq(court.jurorCount(), 0);
        assertEq(_balance(_juror), JUROR_BALANCE);
    }

    function test_ResignKeepsTheSeat() public {
        _seatJurors(4);
        (bytes32 caseId,) = _challengePaid(10e6);
        _draw(caseId);
        address who = _seats(caseId)[0];
        vm.prank(who);
        court.resign();
        _vote(caseId, Verdict.Clear, Verdict.Clear, Verdict.Clear);
        assertEq(_balance(who), JUROR_BALANCE + FEE);
    }

    function test_ExpelSparesTheEligible() public {
        _enrolNew(_juror, MIN_STAKE);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_StillEligible.selector, _juror));
        court.expel(_juror);
        vm.prank(_juror);
        court.withdraw(JUROR_BALANCE - JUROR_DEPOSIT);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_StillEligible.selector, _juror));
        court.expel(_juror);
    }

    function test_ExpelTakesOutWhoeverLacksBalanceOrStake() public {
        _enrolNew(_juror, MIN_STAKE);
        vm.prank(_juror);
        court.withdraw(JUROR_BALANCE - JUROR_DEPOSIT + 1);
        vm.expectEmit(address(court));
        emit ICourt.Resigned(_juror);
        court.expel(_juror);
        assertEq(court.jurorOf(_juror).place, 0);

        vm.startPrank(_juror);
        court.enrol(1);
        registry.requestUnstake(1);
        vm.stopPrank();
        court.expel(_juror);
        assertEq(court.jurorCount(), 0);
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NoSeat.selector, _juror));
        court.expel(_juror);
    }

    function test_ExpelTakesOutJurorsWhoWereSlashed() public {
        _enrolNew(_juror, 2 * MIN_STAKE);
        vm.prank(address(court));
        registry.slash(_juror, 1);
        court.expel(_juror);
        vm.prank(_juror);
        court.enrol(0);
        assertEq(court.jurorOf(_juror).weight, 2 * MIN_STAKE - 1);
    }

    function test_ExpelOfAStrangerIsRefused() public {
        vm.expectRevert(abi.encodeWithSelector(ICourt.Court_NoSeat.selector, stranger));
        court.expel(stranger);
    }

    function testFuzz_WithdrawPaysWhatStandsBehindNoSeat(uint64 amount) public {
        _seatJurors(3);
        (bytes32 caseId,) = _challengePaid(10e6);
        _draw(caseId);
        address who = jurors[0];
        uint64 free = JUROR_BALANCE - JUROR_DEPOSIT;
        uint256 before = token.balanceOf(who);
        uint64 above = uint64(bound(amount, free + 1, type(uint64).max));
        vm.startPrank(who);
        vm.expectRevert(_error(ICourt.Court_AboveBalance.selector, above, free));
        court.withdraw(above);
        amount = uint64(bound(amount, 1, free));
        vm.expectEmit(address(court));
        emit ICourt.BalanceWithdrawn(who, amount);
        court.withdraw(amount);
        vm.stopPrank();
        assertEq(token.balanceOf(who), before + amount);
        assertEq(_balance(who), JUROR_BALANCE - amount);
        _assertSolvent(1);
    }

    function test_WithdrawRefusesZeroAndStrangers() public {
        vm.startPrank(stranger);
        vm.expectRevert(ICourt.Court_ZeroAmount.selector);
        court.withdraw(0);
        vm.expectRevert(_error(ICourt.Court_AboveBalance.selector, 1, 0));
        court.withdraw(1);
        vm.stopPrank();
    }

    function test_WithdrawPaysTheChallengerItsBond() public {
        (bytes32 caseId,) = _challengePaid(10e6);
        _draw(caseId);
        vm.prank(challenger);
        court.withdraw(BOND);
        assertEq(token.balanceOf(challenger), FUNDS);
        assertEq(token.balanceOf(address(court)), 0);
    }

    function _assertPlaces() private view {
        uint256 seen = 0;
        for (uint256 i = 0; i < jurors.length; ++i) {
            uint32 place = court.jurorOf(jurors[i]).place;
            if (place == 0) continue;
            assertLe(place, court.jurorCount());
            assertEq(seen & (1 << place), 0);
            seen |= 1 << place;
        }
        assertEq(seen, 2 ** (court.jurorCount() + 1) - 2);
        assertEq(court.jurorOf(address(0)).place, 0);
    }

    function _stake(address who, uint128 amount) private {
        _fund(who);
        vm.startPrank(who);
        registry.register("");
        registry.stake(amount);
        vm.stopPrank();
    }
}
